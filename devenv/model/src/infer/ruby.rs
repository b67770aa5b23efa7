//! Ruby: Bundler, and the server of a Rack or Rails application.

use super::Look;
use super::command::Program;
use crate::config::Command;

pub(super) fn infer(look: &mut Look<'_>, program: &Program) {
    let source = look.known.source.to_owned();
    let gemfile = look.has("Gemfile");
    if gemfile {
        let why = format!("{} is there", look.shown_file("Gemfile"));
        let command = look.command_in(&source, &["bundle", "install"]);
        look.install(command, why);
    }
    if let Program::Run(_) = program {
        look.run_as_said(program);
        return;
    }
    if !look.wants_run() {
        return;
    }
    let exposed = look.guess.exposed.first().map(|p| p.value);
    let known = look.known.port.or(exposed);
    let bundle = if gemfile { "bundle exec " } else { "" };
    let cd = if look.workdir == source {
        String::new()
    } else {
        let cd = Command::Argv(vec!["cd".into(), look.in_workdir(&source)]);
        format!("{cd} && ")
    };
    let found = if look.has("bin/rails") {
        let port = known.unwrap_or(3000);
        Some((
            "bin/rails",
            format!("rails server -b 0.0.0.0 -p ${{PORT:-{port}}}"),
        ))
    } else if look.has("config.ru") {
        let port = known.unwrap_or(9292);
        let puma = look
            .text(&look.path("Gemfile"))
            .is_some_and(|t| t.text().contains("puma"));
        let line = if puma {
            format!("puma -b tcp://0.0.0.0:${{PORT:-{port}}}")
        } else {
            format!("rackup -o 0.0.0.0 -p ${{PORT:-{port}}}")
        };
        Some(("config.ru", line))
    } else {
        ["app.rb", "main.rb", "server.rb"]
            .into_iter()
            .find(|name| look.path(name).is_file())
            .map(|name| (name, format!("ruby {name}")))
    };
    match found {
        Some((name, line)) => {
            let why = format!("{} is there", look.shown_file(name));
            look.run(Command::Shell(format!("{cd}exec {bundle}{line}")), why);
        }
        None => {
            let reason = "there is no bin/rails, config.ru or app.rb".to_owned();
            look.guess.reasons.push(reason);
        }
    }
}
