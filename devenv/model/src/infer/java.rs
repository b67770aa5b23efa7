//! Java and its relatives: Maven or Gradle, by the project's own wrapper where it has one.

use super::Look;
use super::command::Program;
use crate::config::Command;

pub(super) fn infer(look: &mut Look<'_>, program: &Program) {
    if let Program::Run(_) = program {
        look.run_as_said(program);
    }
    if look.has("pom.xml") {
        maven(look, program);
    } else {
        gradle(look, program);
    }
}

fn maven(look: &mut Look<'_>, program: &Program) {
    let source = look.known.source.to_owned();
    let path = look.path("pom.xml");
    let why = format!("{} is there", look.shown(&path));
    let tool = wrapper(look, "mvnw", "mvn");
    let Some(text) = look.text(&path) else { return };
    let jar = match archive(text.text()) {
        Ok(jar) => jar,
        Err(Unclear::Malformed(line, message)) => {
            look.warn(&path, line, format!("this is not XML: {message}"));
            return;
        }
        Err(Unclear::Packaging(packaging)) => {
            let pom = look.shown(&path);
            look.guess
                .reasons
                .push(format!("{pom} makes a {packaging}, no program"));
            return;
        }
    };
    let mut argv: Vec<&str> = tool.iter().map(String::as_str).collect();
    argv.extend(["-q", "-B", "-DskipTests", "package"]);
    let build = look.command_in(&source, &argv);
    let target = source.join("target");
    let made = match jar {
        Jar::Named(name) => vec![look.in_workdir(&target.join(name))],
        Jar::Quarkus => vec![look.in_workdir(&target.join("quarkus-app/quarkus-run.jar"))],
        Jar::Unknown => {
            let folder = look.in_workdir(&target);
            any_jar(look, program, build, &folder, &why);
            return;
        }
    };
    run(look, program, build, &made[0], &why);
}

fn gradle(look: &mut Look<'_>, program: &Program) {
    let source = look.known.source.to_owned();
    let names = ["build.gradle.kts", "build.gradle"];
    let Some(name) = look.first(&names) else {
        return;
    };
    let why = format!("{} is there", look.shown_file(name));
    let tool = wrapper(look, "gradlew", "gradle");
    let spring = look
        .text(&look.path(name))
        .is_some_and(|t| t.text().contains("org.springframework.boot"));
    let mut argv: Vec<&str> = tool.iter().map(String::as_str).collect();
    argv.extend([
        "-q",
        "--console=plain",
        if spring { "bootJar" } else { "assemble" },
    ]);
    let build = look.command_in(&source, &argv);
    let folder = look.in_workdir(&source.join("build/libs"));
    any_jar(look, program, build, &folder, &why);
}

/// The project's own copy of the tool, or the system's. The copy may not be executable.
fn wrapper(look: &mut Look<'_>, own: &'static str, system: &str) -> Vec<String> {
    if !look.has(own) {
        return vec![system.to_owned()];
    }
    vec!["sh".into(), format!("./{own}")]
}

fn run(look: &mut Look<'_>, program: &Program, build: Command, jar: &str, why: &str) {
    look.build(build, why.to_owned());
    match program {
        // Its own options stay before the archive.
        Program::Made(made) if made.starter().is_some() => look.run_made(program, &[jar], why),
        _ => look.run_made(program, &["java", "-jar", jar], why),
    }
}

/// The archive's name depends on more than can be read here: it is looked for when the
/// program starts. Archives without dependencies, sources and documentation don't run.
fn any_jar(look: &mut Look<'_>, program: &Program, build: Command, folder: &str, why: &str) {
    look.build(build, why.to_owned());
    if let Program::Run(_) = program {
        return;
    }
    let folder = Command::Argv(vec![folder.to_owned()]);
    let options = match program {
        Program::Made(made) => made.starter(),
        _ => None,
    };
    let options = options.unwrap_or_else(|| "java -jar".into());
    let line = format!(
        "exec {options} \"$(ls -t {folder}/*.jar | grep -Ev -- '-(plain|sources|javadoc)[.]jar$' | head -n 1)\""
    );
    look.run(Command::Shell(line), why.to_owned());
}

enum Jar {
    Named(String),
    Quarkus,
    Unknown,
}

enum Unclear {
    /// Line and message.
    Malformed(usize, String),
    Packaging(String),
}

/// The archive that `mvn package` makes of a `pom.xml`.
fn archive(text: &str) -> Result<Jar, Unclear> {
    let document = roxmltree::Document::parse(text)
        .map_err(|e| Unclear::Malformed(e.pos().row as usize, e.to_string()))?;
    let project = document.root_element();
    fn child<'d>(node: roxmltree::Node<'d, 'd>, name: &str) -> Option<roxmltree::Node<'d, 'd>> {
        node.children().find(|n| n.tag_name().name() == name)
    }
    fn text_of<'d>(node: roxmltree::Node<'d, 'd>, path: &[&str]) -> Option<&'d str> {
        let found = path.iter().try_fold(node, |n, name| child(n, name))?;
        found.text().map(str::trim).filter(|t| !t.is_empty())
    }
    if let Some(packaging) = text_of(project, &["packaging"])
        && packaging != "jar"
    {
        return Err(Unclear::Packaging(packaging.to_owned()));
    }
    if text.contains("quarkus-maven-plugin") {
        return Ok(Jar::Quarkus);
    }
    let artifact = text_of(project, &["artifactId"]);
    let version =
        text_of(project, &["version"]).or_else(|| text_of(project, &["parent", "version"]));
    let name = match (text_of(project, &["build", "finalName"]), artifact, version) {
        (Some(name), artifact, version) => name
            .replace("${project.artifactId}", artifact.unwrap_or("${"))
            .replace("${project.version}", version.unwrap_or("${")),
        (None, Some(artifact), Some(version)) => format!("{artifact}-{version}"),
        _ => return Ok(Jar::Unknown),
    };
    // Other variables are known to Maven alone.
    if name.contains(['$', '{', '/']) {
        return Ok(Jar::Unknown);
    }
    Ok(Jar::Named(format!("{name}.jar")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("<artifactId>a</artifactId><version>1.0</version>", Some("a-1.0.jar"))]
    #[case(
        "<parent><version>2</version></parent><artifactId>a</artifactId>",
        Some("a-2.jar")
    )]
    #[case(
        "<artifactId>a</artifactId><version>1</version><build><finalName>app</finalName></build>",
        Some("app.jar")
    )]
    #[case(
        "<artifactId>a</artifactId><build><finalName>${project.artifactId}</finalName></build>",
        Some("a.jar")
    )]
    #[case("<artifactId>a</artifactId><version>${revision}</version>", None)]
    #[case("<artifactId>a</artifactId>", None)]
    fn archives(#[case] inner: &str, #[case] want: Option<&str>) {
        let text =
            format!("<project xmlns=\"http://maven.apache.org/POM/4.0.0\">{inner}</project>");
        let Ok(jar) = archive(&text) else {
            panic!("{text}");
        };
        let name = match &jar {
            Jar::Named(name) => Some(name.as_str()),
            _ => None,
        };
        assert_eq!(name, want);
    }

    #[test]
    fn what_makes_no_archive() {
        let parent = "<project><packaging>pom</packaging></project>";
        assert!(matches!(archive(parent), Err(Unclear::Packaging(p)) if p == "pom"));
        assert!(matches!(
            archive("<project>\n</a>"),
            Err(Unclear::Malformed(2, _))
        ));
    }
}
