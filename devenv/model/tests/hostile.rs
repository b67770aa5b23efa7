//! Loading survives any bytes: it returns, with problems or without, and never panics.

use std::fs;
use std::path::Path;

use devenv_model::{LoadOptions, Loaded, Topology};
use proptest::prelude::*;

const CONFIG: &str = "[project]\nnamespace = \"d\"\nmanifests = [\"m.yaml\"]\n[image.a]\nsource = \".\"\nrun = \"x\"\n[cloudsql]\n";

fn load(config: &[u8], manifest: &[u8]) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), config, manifest);
    let loaded = Topology::load(dir.path(), &LoadOptions::default());
    for p in &loaded.problems {
        // What a renderer does with a problem.
        assert!(p.place.source().text().get(p.place.span()).is_some());
        assert!(!p.to_string().is_empty());
    }
    loaded
}

fn write(root: &Path, config: &[u8], manifest: &[u8]) {
    fs::write(root.join("devenv.toml"), config).unwrap();
    fs::write(root.join("m.yaml"), manifest).unwrap();
}

/// Words that make random text look like manifests now and then.
fn soup(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(words), 0..60).prop_map(|w| w.concat())
}

const YAML: &[&str] = &[
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    ": ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "<<: ",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "!!int ",
    "!x ",
    "\t",
    "\"",
    "'",
    "#",
    "é",
    "\u{feff}",
    "\r\n",
    "apiVersion",
    "v1",
    "apps/v1",
    "kind",
    "Deployment",
    "Service",
    "List",
    "metadata",
    "name",
    "labels",
    "spec",
    "items",
    "containers",
    "image",
    "a",
    "template",
    "selector",
    "ports",
    "010",
    "1e999",
    ".nan",
    "yes",
    "null",
    "%YAML 1.2\n",
    "%",
    "@",
];

const TOML: &[&str] = &[
    "\n",
    "[project]",
    "[image.a]",
    "[[image]]",
    "[",
    "]",
    "=",
    "\"",
    "'''",
    ".",
    ",",
    "{",
    "}",
    "name",
    "manifests",
    "source",
    "run",
    "env",
    "cloudsql",
    "engine",
    "1",
    "-",
    "0x",
    "1979-05-27",
    "nan",
    "true",
    "é",
    "#",
    "\t",
    "\\u00",
    "image",
];

const KUSTOMIZATION: &[&str] = &[
    "\nresources: [c.yaml]",
    "\nresources: [.]",
    "\npatches:",
    "\n- patch: |-",
    "\n    - op: add",
    "\n      path: /metadata/labels",
    "\n      path: /metadata/labels/-",
    "\n      value: {a: b}",
    "\n    - op: copy",
    "\n      from: /metadata",
    "\n  target: {kind: .*}",
    "\n- path: c.yaml",
    "\nnamespace: x_y",
    "\nimages: [{name: a, newTag: b}]",
    "\nlabels: [{pairs: {a: b}}]",
    "\n    apiVersion: v1",
    "\n    kind: ConfigMap",
    "\n    metadata: {name: c}",
    "\n    $patch: delete",
    "\n    data: [1]",
    "\ncommonLabels: {a: b}",
    "\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_as_manifest(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        load(CONFIG.as_bytes(), &bytes);
    }

    #[test]
    fn any_bytes_as_config(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        load(&bytes, b"");
    }

    #[test]
    fn word_soup_as_manifest(text in soup(YAML)) {
        load(CONFIG.as_bytes(), text.as_bytes());
    }

    #[test]
    fn any_bytes_as_dockerfile(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        dockerfile(&bytes);
    }

    #[test]
    fn word_soup_as_dockerfile(text in soup(DOCKERFILE)) {
        dockerfile(format!("FROM a AS s\n{text}").as_bytes());
    }

    #[test]
    fn word_soup_beside_the_source(text in soup(PACKAGES), name in proptest::sample::select(PACKAGE_FILES)) {
        beside_the_source(&[(name, text.as_bytes())]);
    }

    #[test]
    fn word_soup_as_config(text in soup(TOML)) {
        load(text.as_bytes(), b"");
    }

    #[test]
    fn word_soup_as_kustomization(text in soup(KUSTOMIZATION)) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("devenv.toml"), "[project]\nmanifests = [\".\"]\n").unwrap();
        fs::write(dir.path().join("kustomization.yaml"), &text).unwrap();
        fs::write(
            dir.path().join("c.yaml"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
        ).unwrap();
        let loaded = Topology::load(dir.path(), &LoadOptions::default());
        for p in &loaded.problems {
            prop_assert!(p.place.source().text().get(p.place.span()).is_some());
        }
    }
}

const DOCKERFILE: &[&str] = &[
    "\nFROM ",
    "\nENV ",
    "\nARG ",
    "\nCMD ",
    "\nENTRYPOINT ",
    "\nRUN ",
    "\nCOPY ",
    "\nADD ",
    "\nWORKDIR ",
    "\nEXPOSE ",
    "\nSHELL ",
    "\nONBUILD ",
    "\nHEALTHCHECK ",
    "\nVOLUME ",
    "\n# escape=`\n",
    " AS s",
    "s ",
    "a",
    " ",
    "=",
    "$",
    "${",
    "}",
    ":-",
    "\"",
    "'",
    "\\",
    "\\\n",
    "[",
    "]",
    ",",
    "<<E\n",
    "\nE\n",
    "--from=s ",
    "--mount=x ",
    "/",
    "..",
    "./",
    "*",
    "8080",
    "-",
    "é",
    "\r\n",
    "\u{feff}",
    "python main.py",
    "npm start",
    "java -jar a.jar",
    "go build -o x ./y",
    "pip install -r r.txt",
    "uv run",
    "tini -- ",
    "exec ",
    "&&",
    ";",
];

const PACKAGE_FILES: &[&str] = &[
    "package.json",
    "pyproject.toml",
    "requirements.txt",
    "Cargo.toml",
    "go.mod",
    "pom.xml",
    "build.gradle",
    "Gemfile",
    "Pipfile",
    "main.py",
    ".python-version",
    ".cargo/config.toml",
];

const PACKAGES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\n",
    " ",
    "=",
    "<",
    ">",
    "</",
    "/>",
    "a",
    "é",
    "-r ",
    "-c ",
    "\"scripts\": ",
    "\"start\": ",
    "\"node a\"",
    "\"workspaces\"",
    "[package]\n",
    "[workspace]\n",
    "name = 'a'\n",
    "path = '..'\n",
    "members = ['*']\n",
    "[dependencies]\n",
    "a = {path = '.'}\n",
    "replace a => ../",
    "<project>",
    "<artifactId>",
    "requirements.txt",
    "3.12",
    "app = FastAPI()\n",
];

/// Loads a project whose only image has these files beside its source.
fn beside_the_source(files: &[(&str, &[u8])]) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, &CONFIG.replace("run = \"x\"\n", "").into_bytes(), b"");
    for (name, bytes) in files {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), bytes).unwrap();
    }
    let loaded = Topology::load(root, &LoadOptions::default());
    for p in &loaded.problems {
        assert!(p.place.source().text().get(p.place.span()).is_some());
        assert!(!p.to_string().is_empty());
    }
    loaded
}

fn dockerfile(bytes: &[u8]) -> Loaded {
    beside_the_source(&[
        ("Dockerfile", bytes),
        ("main.py", b""),
        ("package.json", b"{}"),
    ])
}

#[test]
fn malformed_dockerfiles() {
    let junk: Vec<u8> = (0..=255).cycle().take(10 << 20).collect();
    for bytes in [
        junk.as_slice(),
        b"\xff\xfe",
        b"FROM x\nCMD [\"a",
        b"FROM x\nRUN <<E\nnever ends",
        b"FROM x\nCMD \"never ends",
        b"FROM x\nENV A=\"b\nCMD c\\",
        b"FROM x\nCMD a \\\n\\\n\\\n",
        b"FROM \\",
        b"# escape=",
        b"FROM x\nCMD [\"\\ud800\"]",
        b"FROM x AS x\nFROM x AS y\nFROM y AS z\n",
    ] {
        dockerfile(bytes);
    }
    // Larger than any: told, and nothing is inferred from it.
    let loaded = dockerfile(&b"FROM x\n# a comment\n".repeat(1 << 20));
    let codes: Vec<&str> = loaded.problems.iter().map(|p| p.code).collect();
    assert!(codes.contains(&"file::too-big"), "{codes:?}");
}

#[test]
fn files_that_include_each_other_end() {
    beside_the_source(&[
        ("requirements.txt", b"-r a.txt\n-r b.txt\n"),
        (
            "a.txt",
            b"-r b.txt\n-r requirements.txt\n-r ../../../../etc/passwd\n",
        ),
        ("b.txt", b"-r a.txt\n"),
    ]);
    beside_the_source(&[
        (
            "Cargo.toml",
            b"[package]\nname='a'\n[dependencies]\nb={path='b'}\n",
        ),
        (
            "b/Cargo.toml",
            b"[package]\nname='b'\n[dependencies]\na={path='..'}\nc={path='../..'}\n",
        ),
    ]);
    on_small_stack(|| {
        let deep = "<a>".repeat(100_000);
        beside_the_source(&[("pom.xml", deep.as_bytes())]);
        let deep = "[".repeat(100_000);
        beside_the_source(&[("package.json", deep.as_bytes())]);
        let deep = format!("a = {deep}");
        beside_the_source(&[("pyproject.toml", deep.as_bytes())]);
        beside_the_source(&[("Cargo.toml", deep.as_bytes())]);
    });
}

#[track_caller]
fn refused(config: &str, manifest: &str, code: &str) {
    let loaded = load(config.as_bytes(), manifest.as_bytes());
    let codes: Vec<&str> = loaded.problems.iter().map(|p| p.code).collect();
    assert!(codes.contains(&code), "{code} not among {codes:?}");
    assert!(loaded.topology.is_none());
}

/// Runs on a small stack: what overflows here would overflow a tokio worker too.
#[track_caller]
fn on_small_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(f)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn deep_nesting_is_an_error() {
    on_small_stack(|| {
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")] {
            let text = format!("a:\n {}{}\n", open.repeat(20_000), close.repeat(20_000));
            let loaded = load(CONFIG.as_bytes(), text.as_bytes());
            assert!(loaded.topology.is_none(), "{open}");
        }
        refused(
            CONFIG,
            &format!("a: {}\n", "[".repeat(200)),
            "yaml::too-deep",
        );
        let deep = (0..3000)
            .map(|i| format!("{}a:\n", " ".repeat(i)))
            .collect::<String>();
        refused(CONFIG, &deep, "yaml::too-deep");
        let toml = format!(
            "{CONFIG}\nx = {}{}\n",
            "[".repeat(20_000),
            "]".repeat(20_000)
        );
        refused(&toml, "", "toml::syntax");
        let toml = format!("{CONFIG}\n{}a = 1\n", "a.".repeat(20_000));
        refused(&toml, "", "toml::syntax");
        // Aliases add their target's depth to their own.
        let mut text = format!("a0: &a0 {}x{}\n", "[".repeat(60), "]".repeat(60));
        text += &format!("a1: {}*a0{}\n", "[".repeat(60), "]".repeat(60));
        refused(CONFIG, &text, "yaml::too-deep");
    });
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..30 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    refused(CONFIG, &text, "yaml::too-big");
}

#[test]
fn patches_cannot_grow_an_object_without_bound() {
    let dir = tempfile::tempdir().unwrap();
    // Each copy under a new key doubles what is there.
    let copies: String = (0..60)
        .map(|i| format!("      - {{op: copy, from: /data, path: /data/k{i}}}\n"))
        .collect();
    fs::write(
        dir.path().join("devenv.toml"),
        "[project]\nmanifests = [\".\"]\n",
    )
    .unwrap();
    fs::write(
        dir.path().join("kustomization.yaml"),
        format!("resources: [c.yaml]\npatches:\n  - target: {{kind: .*}}\n    patch: |-\n{copies}"),
    )
    .unwrap();
    fs::write(
        dir.path().join("c.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n",
    )
    .unwrap();
    let loaded = Topology::load(dir.path(), &LoadOptions::default());
    let codes: Vec<&str> = loaded.problems.iter().map(|p| p.code).collect();
    assert!(codes.contains(&"kustomize::patch"), "{codes:?}");
}

#[test]
fn kustomize_folders_that_multiply_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("devenv.toml"),
        "[project]\nmanifests = [\"k0\"]\n",
    )
    .unwrap();
    for i in 0..30 {
        let folder = dir.path().join(format!("k{i}"));
        fs::create_dir(&folder).unwrap();
        let next = i + 1;
        fs::write(
            folder.join("kustomization.yaml"),
            format!("resources: [../k{next}, ../k{next}]\n"),
        )
        .unwrap();
    }
    let loaded = Topology::load(dir.path(), &LoadOptions::default());
    let codes: Vec<&str> = loaded.problems.iter().map(|p| p.code).collect();
    assert!(codes.contains(&"kustomize::too-many"), "{codes:?}");
}

#[test]
fn only_regular_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("devenv.toml"),
        "[project]\nmanifests = [\"null.yaml\"]\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("null.yaml")).unwrap();
    let loaded = Topology::load(dir.path(), &LoadOptions::default());
    let codes: Vec<&str> = loaded.problems.iter().map(|p| p.code).collect();
    assert_eq!(codes, ["file::unreadable"]);
}
