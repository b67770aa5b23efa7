//! `.vscode/launch.json`: how VS Code attaches to a workload that is debugged.
//!
//! The file is people's: it is JSON with comments, and everything in it that is not the
//! one configuration stays as it is, byte for byte.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use devenv_engine::debug::{Debugger, Session};
use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstObject, CstRootNode},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The file, in the project's folder.
const FILE: &str = ".vscode/launch.json";

/// What became of the file.
#[derive(Debug, Serialize)]
pub struct Launch {
    /// Where it is, or would be.
    pub path: PathBuf,
    /// The configuration; nothing where VS Code has no debugger for it.
    pub configuration: Option<Value>,
    /// Why it is not written there; nothing when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// Adds the configuration of `session` to the file of the project in `root`, or brings
/// the one of the same name up to date. What can't be kept is left alone, and said.
pub fn write(root: &Path, session: &Session) -> Launch {
    let path = root.join(FILE);
    let Some(configuration) = configuration(root, session) else {
        return Launch {
            path,
            configuration: None,
            why_not: Some(
                "it is not known how VS Code talks to what [image.NAME] debug starts".to_owned(),
            ),
        };
    };
    let why_not = put(root, &path, &configuration).err();
    Launch {
        path,
        configuration: Some(configuration),
        why_not,
    }
}

fn put(root: &Path, path: &Path, configuration: &Value) -> Result<(), String> {
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e.to_string()),
    };
    let after = merged(&before, configuration)?;
    if after == before {
        return Ok(());
    }
    save(root, path, &after).map_err(|e| e.to_string())
}

/// Replaces the file as a whole; what this makes belongs to the project's owner.
fn save(root: &Path, path: &Path, text: &str) -> io::Result<()> {
    // A link stays one.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(root);
    let owner = fs::metadata(root)?;
    let given = |made: &Path| match nix::unistd::geteuid().is_root() {
        true => chown(made, Some(owner.uid()), Some(owner.gid())),
        false => Ok(()),
    };
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        given(folder)?;
    }
    let beside = path.with_extension("json.devenv-new");
    let written = fs::write(&beside, text)
        .and_then(|()| match fs::metadata(path) {
            Ok(known) => fs::set_permissions(&beside, known.permissions()),
            Err(_) => Ok(()),
        })
        .and_then(|()| given(&beside))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // Best effort: the first failure is told.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// The text with the configuration in it.
fn merged(text: &str, configuration: &Value) -> Result<String, String> {
    if text.trim().is_empty() {
        let whole = json!({"version": "0.2.0", "configurations": [configuration]});
        let text = serde_json::to_string_pretty(&whole).map_err(|e| e.to_string())?;
        return Ok(text + "\n");
    }
    // What VS Code itself reads, and no more: nothing may be made of a file that is broken.
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let root = CstRootNode::parse(text, &options).map_err(|e| format!("it can't be read: {e}"))?;
    let whole = root
        .object_value()
        .ok_or_else(|| "it is not an object".to_owned())?;
    let list = match whole.get("configurations") {
        None => whole.array_value_or_set("configurations"),
        Some(property) => property
            .array_value()
            .ok_or_else(|| "its `configurations` is not a list".to_owned())?,
    };
    let name = configuration["name"].as_str();
    let known = list.elements().into_iter().find_map(|element| {
        let object = element.as_object()?;
        let own = object.get("name")?.value()?.as_string_lit()?;
        (own.decoded_value().ok().as_deref() == name).then_some(object)
    });
    match known {
        Some(known) => update(&known, configuration),
        None => {
            list.ensure_multiline();
            list.append(input(configuration));
        }
    }
    Ok(root.to_string())
}

/// What people added to the configuration stays.
fn update(known: &CstObject, configuration: &Value) {
    for (key, value) in configuration.as_object().into_iter().flatten() {
        match known.get(key) {
            Some(property) => {
                let same =
                    property.value().and_then(|v| v.to_serde_value()).as_ref() == Some(value);
                if !same {
                    property.set_value(input(value));
                }
            }
            None => {
                known.append(key, input(value));
            }
        }
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(b) => CstInputValue::Bool(*b),
        Value::Number(n) => CstInputValue::Number(n.to_string()),
        Value::String(s) => CstInputValue::String(s.clone()),
        Value::Array(all) => CstInputValue::Array(all.iter().map(input).collect()),
        Value::Object(all) => {
            CstInputValue::Object(all.iter().map(|(k, v)| (k.clone(), input(v))).collect())
        }
    }
}

fn configuration(root: &Path, session: &Session) -> Option<Value> {
    let name = format!("devenv: {}", session.workload);
    let (host, port) = (session.address.ip().to_string(), session.address.port());
    let local = |path: &Path| match path.strip_prefix(root) {
        Ok(below) if below.as_os_str().is_empty() => "${workspaceFolder}".to_owned(),
        Ok(below) => format!("${{workspaceFolder}}/{}", below.display()),
        Err(_) => path.display().to_string(),
    };
    let (local_root, remote_root) = (local(&session.local_root), &session.remote_root);
    Some(match session.debugger {
        Debugger::Debugpy => json!({
            "name": name,
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": host, "port": port},
            "pathMappings": [{"localRoot": local_root, "remoteRoot": remote_root}],
        }),
        Debugger::NodeInspector => json!({
            "name": name,
            "type": "node",
            "request": "attach",
            "address": host,
            "port": port,
            "localRoot": local_root,
            "remoteRoot": remote_root,
            // After an edit it is another program.
            "restart": true,
            "skipFiles": ["<node_internals>/**"],
        }),
        // Microsoft's C/C++ extension, whose gdb knows Rust as well.
        Debugger::Gdbserver => json!({
            "name": name,
            "type": "cppdbg",
            "request": "launch",
            "MIMode": "gdb",
            "miDebuggerServerAddress": format!("{host}:{port}"),
            "program": local(session.program.as_deref()?),
            "cwd": local_root,
        }),
        Debugger::Custom => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(debugger: Debugger) -> Session {
        Session {
            kind: "Deployment".into(),
            workload: "api1".into(),
            namespace: "n".into(),
            container: "c".into(),
            debugger,
            address: ([127, 1, 2, 3], 5678).into(),
            wait: false,
            replicas: 1,
            local_root: "/p/services/api1".into(),
            remote_root: "/app".into(),
            program: Some("/p/target/debug/api1".into()),
            notes: Vec::new(),
        }
    }

    fn made(debugger: Debugger) -> Value {
        configuration(Path::new("/p"), &session(debugger)).unwrap()
    }

    #[test]
    fn configurations() {
        let python = made(Debugger::Debugpy);
        assert_eq!(
            python["connect"],
            json!({"host": "127.1.2.3", "port": 5678})
        );
        assert_eq!(
            python["pathMappings"][0],
            json!({"localRoot": "${workspaceFolder}/services/api1", "remoteRoot": "/app"})
        );
        let node = made(Debugger::NodeInspector);
        assert_eq!(
            (&node["address"], &node["port"]),
            (&json!("127.1.2.3"), &json!(5678))
        );
        let native = made(Debugger::Gdbserver);
        assert_eq!(native["program"], "${workspaceFolder}/target/debug/api1");
        assert_eq!(native["miDebuggerServerAddress"], "127.1.2.3:5678");
        assert!(configuration(Path::new("/p"), &session(Debugger::Custom)).is_none());
    }

    #[test]
    fn what_people_wrote_stays() {
        let before = "// ours\n{\n\t\"version\": \"0.2.0\", /* fixed */\n\t\"configurations\": [\n\t\t// by hand\n\t\t{\"name\": \"mine\", \"type\": \"x\",},\n\t],\n}\n";
        let configuration = made(Debugger::NodeInspector);
        let once = merged(before, &configuration).unwrap();
        for kept in [
            "// ours\n{\n\t\"version\": \"0.2.0\", /* fixed */\n",
            "\t\t// by hand\n\t\t{\"name\": \"mine\", \"type\": \"x\",}",
        ] {
            assert!(once.contains(kept), "{once}");
        }
        let read = |text: &str| {
            let root = CstRootNode::parse(text, &ParseOptions::default()).unwrap();
            root.to_serde_value().unwrap()
        };
        assert_eq!(read(&once)["configurations"][1], configuration);
        // Once more changes nothing; another port changes that, and keeps what was added.
        assert_eq!(merged(&once, &configuration).unwrap(), once);
        let edited = once.replace(
            "\"restart\": true",
            "\"restart\": true, // mine\n\"trace\": true",
        );
        let mut moved = configuration.clone();
        moved["port"] = json!(9230);
        let twice = merged(&edited, &moved).unwrap();
        assert!(twice.contains("// mine"), "{twice}");
        let list = &read(&twice)["configurations"];
        assert_eq!(list.as_array().unwrap().len(), 2);
        assert_eq!(
            (&list[1]["port"], &list[1]["trace"]),
            (&json!(9230), &json!(true))
        );
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let configuration = made(Debugger::Debugpy);
        for broken in ["{", "[]", "{\"configurations\": {}}", "{'a': 1}", "null"] {
            assert!(merged(broken, &configuration).is_err(), "{broken}");
        }
        let empty = merged("{}", &configuration).unwrap();
        assert!(empty.contains("\"configurations\""), "{empty}");
    }

    #[test]
    fn a_file_is_made_and_left_alone_when_broken() {
        let dir = tempfile::tempdir().unwrap();
        let done = write(dir.path(), &session(Debugger::Debugpy));
        assert_eq!(done.why_not, None);
        let text = fs::read_to_string(&done.path).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            Some(&read["configurations"][0]),
            done.configuration.as_ref()
        );
        fs::write(&done.path, "{ broken").unwrap();
        let refused = write(dir.path(), &session(Debugger::Debugpy));
        assert!(refused.why_not.is_some());
        assert_eq!(fs::read_to_string(&done.path).unwrap(), "{ broken");
    }
}
