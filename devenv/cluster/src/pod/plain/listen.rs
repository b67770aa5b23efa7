//! Telling a program the port that it was given, also where its variables and
//! arguments name the one of the manifest. Pure.

/// The port and address that stand for those of the manifest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listen<'a> {
    /// The manifest's.
    pub(super) stands_for: u16,
    /// The pod's own address.
    pub(super) host: &'a str,
    /// The given one.
    pub(super) port: u16,
}

/// Flags whose value is the port to listen at.
const FLAGS: [&str; 6] = [
    "-p",
    "--port",
    "--http-port",
    "--listen-port",
    "--server.port",
    "--http.port",
];
/// Variables whose value is that, where they name the manifest's port.
const VARIABLES: [&str; 8] = [
    "SERVER_PORT",
    "HTTP_PORT",
    "APP_PORT",
    "LISTEN_PORT",
    "BIND_PORT",
    "UVICORN_PORT",
    "FLASK_RUN_PORT",
    "ASPNETCORE_HTTP_PORTS",
];
/// Every address, as programs write it before a port.
const EVERYWHERE: [&str; 4] = ["0.0.0.0:", "[::]:", "*:", "+:"];

impl Listen<'_> {
    /// Changes the values of variables that say where to listen.
    pub(super) fn variables(&self, env: &mut [(String, String)]) {
        for (name, value) in env {
            if VARIABLES.contains(&name.as_str()) && self.is_it(value) {
                *value = self.port.to_string();
            } else if let Some(changed) = self.text(value) {
                *value = changed;
            }
        }
    }

    /// Changes the arguments that say where to listen.
    pub(super) fn arguments(&self, argv: &mut [String]) {
        for at in 1..argv.len() {
            let (before, rest) = argv.split_at_mut(at);
            let word = &mut rest[0];
            let is_flag = |text: &str| FLAGS.contains(&text);
            let behind_flag = before.last().is_some_and(|flag| is_flag(flag));
            let assigned = word
                .split_once('=')
                .map(|(f, v)| is_flag(f) && self.is_it(v));
            if behind_flag && self.is_it(word) {
                *word = self.port.to_string();
            } else if assigned == Some(true) {
                let flag = word.split('=').next().unwrap_or_default().to_owned();
                *word = format!("{flag}={}", self.port);
            } else if let Some(changed) = self.text(word) {
                *word = changed;
            }
        }
    }

    /// Changes `localhost:5000` and the like in a command beside the program.
    pub(super) fn beside(&self, argv: &mut [String]) {
        let (wanted, given) = (self.stands_for.to_string(), self.port.to_string());
        for word in argv {
            for host in ["localhost", "127.0.0.1"] {
                for port in [&*wanted, &*given, "$PORT", "${PORT}"] {
                    let from = format!("{host}:{port}");
                    *word = replaced(word, &from, |_, _| {
                        Some(format!("{}:{}", self.host, self.port))
                    });
                }
            }
        }
    }

    fn is_it(&self, text: &str) -> bool {
        text.parse() == Ok(self.stands_for)
    }

    /// `0.0.0.0:5000`, and `:5000` alone or assigned.
    fn text(&self, text: &str) -> Option<String> {
        let place = format!("{}:{}", self.host, self.port);
        let mut out = text.to_owned();
        for every in EVERYWHERE {
            let from = format!("{every}{}", self.stands_for);
            out = replaced(&out, &from, |before, _| {
                let joined = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
                (!joined).then(|| place.clone())
            });
        }
        let bare = format!(":{}", self.stands_for);
        out = replaced(&out, &bare, |before, _| {
            (before.is_empty() || before.ends_with('=')).then(|| place.clone())
        });
        (out != text).then_some(out)
    }
}

/// Replaces `from` where it is not followed by a digit and `by`, told what stands before and
/// behind, has something for it.
fn replaced(text: &str, from: &str, by: impl Fn(&str, &str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, _) in text.match_indices(from) {
        let end = at + from.len();
        let (before, after) = (&text[..at], &text[end..]);
        if after.starts_with(|c: char| c.is_ascii_digit()) || at < copied {
            continue;
        }
        if let Some(new) = by(before, after) {
            out.push_str(&text[copied..at]);
            out.push_str(&new);
            copied = end;
        }
    }
    out.push_str(&text[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const LISTEN: Listen<'_> = Listen {
        stands_for: 5000,
        host: "127.1.1.2",
        port: 21_500,
    };

    #[rstest]
    #[case("BIND", "0.0.0.0:5000", "127.1.1.2:21500")]
    #[case("BIND", ":5000", "127.1.1.2:21500")]
    #[case("BIND", "[::]:5000", "127.1.1.2:21500")]
    #[case("BIND", "0.0.0.0:50001", "0.0.0.0:50001")]
    #[case("BIND", "10.0.0.0:5000", "10.0.0.0:5000")]
    #[case(
        "ASPNETCORE_URLS",
        "http://+:5000;https://*:5001",
        "http://127.1.1.2:21500;https://*:5001"
    )]
    #[case("OPTS", "--bind=:5000 --x", "--bind=127.1.1.2:21500 --x")]
    #[case("API", "http://api3-service:5000", "http://api3-service:5000")]
    #[case("SERVER_PORT", "5000", "21500")]
    #[case("SERVER_PORT", "5001", "5001")]
    #[case("OTHER_PORT", "5000", "5000")]
    fn values(#[case] name: &str, #[case] value: &str, #[case] expected: &str) {
        let mut env = [(name.to_owned(), value.to_owned())];
        LISTEN.variables(&mut env);
        assert_eq!(env[0].1, expected);
        let mut again = env.clone();
        LISTEN.variables(&mut again);
        assert_eq!(again, env, "twice is as good");
    }

    #[rstest]
    #[case(&["uvicorn", "main:app", "--host", "0.0.0.0", "--port", "5000"], &["uvicorn", "main:app", "--host", "0.0.0.0", "--port", "21500"])]
    #[case(&["gunicorn", "-b", "0.0.0.0:5000"], &["gunicorn", "-b", "127.1.1.2:21500"])]
    #[case(&["java", "--server.port=5000"], &["java", "--server.port=21500"])]
    #[case(&["app", "-p", "5001", "5000"], &["app", "-p", "5001", "5000"])]
    #[case(&["sh", "-c", "exec app --listen 0.0.0.0:5000"], &["sh", "-c", "exec app --listen 127.1.1.2:21500"])]
    fn command_lines(#[case] argv: &[&str], #[case] expected: &[&str]) {
        let mut argv: Vec<String> = argv.iter().map(|w| (*w).to_owned()).collect();
        LISTEN.arguments(&mut argv);
        assert_eq!(argv, expected);
    }

    #[rstest]
    #[case("curl http://localhost:5000/x", "curl http://127.1.1.2:21500/x")]
    #[case("curl 127.0.0.1:$PORT", "curl 127.1.1.2:21500")]
    #[case("curl localhost:9000", "curl localhost:9000")]
    fn probes(#[case] word: &str, #[case] expected: &str) {
        let mut argv = [word.to_owned()];
        LISTEN.beside(&mut argv);
        assert_eq!(argv[0], expected);
    }
}
