use std::process::Command;

use devenv_model::{LoadOptions, Topology};
use rstest::rstest;

use super::*;

/// A project whose only image has these files as its source.
fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, ImageSource) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "devenv.toml",
        "[project]\nmanifests = [\"m.yaml\"]\n[image.\"a/b\"]\nsource = \"s\"\nrun = \"x\"\n",
    );
    write(
        "m.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
    );
    for (name, text) in files {
        write(&format!("s/{name}"), text);
    }
    let loaded = Topology::load(dir.path(), &LoadOptions::default());
    let topology = loaded
        .topology
        .unwrap_or_else(|| panic!("{:?}", loaded.problems));
    (dir, topology.images()["a/b"].clone())
}

/// A folder with programs of these names, as PATH.
fn path_with(dir: &Path, programs: &[&str]) -> Vec<(String, String)> {
    let bin = dir.join("tools");
    fs::create_dir_all(&bin).unwrap();
    for program in programs {
        let path = bin.join(program);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    vec![
        ("PATH".into(), bin.display().to_string()),
        ("VIRTUAL_ENV".into(), "/elsewhere".into()),
        ("LANG".into(), "C".into()),
    ]
}

#[track_caller]
fn plan(dir: &Path, image: &ImageSource, env: &[(String, String)]) -> Venv {
    let plan = Venv::plan(&dir.join(".devenv"), image, env).unwrap();
    plan.unwrap_or_else(|| panic!("{image:?}"))
}

#[rstest]
#[case::requirements(&[("requirements.txt", "x\n")], &["python3"], &[
    "BIN/python3 -m venv VENV",
    "VENV/bin/python -m pip install --no-input --disable-pip-version-check -r S/requirements.txt",
])]
#[case::requirements_with_uv(&[("requirements.txt", "x\n")], &["python3", "uv"], &[
    "BIN/uv venv --no-project --python BIN/python3 VENV",
    "BIN/uv pip install --compile-bytecode --python VENV/bin/python -r S/requirements.txt",
])]
#[case::the_version_of_production(
    &[("requirements.txt", "x\n"), ("Dockerfile", "FROM python:3.12-slim\n")],
    &["python3", "python3.12", "python3.11"],
    &[
        "BIN/python3.12 -m venv VENV",
        "VENV/bin/python -m pip install --no-input --disable-pip-version-check -r S/requirements.txt",
    ],
)]
#[case::included_files_are_installed_once(
    &[("requirements.txt", "-c c.txt\n-r more.txt\n"), ("c.txt", ""), ("more.txt", "")],
    &["python3"],
    &[
        "BIN/python3 -m venv VENV",
        "VENV/bin/python -m pip install --no-input --disable-pip-version-check -r S/requirements.txt",
    ],
)]
#[case::packages_of_the_dockerfile(
    &[("Dockerfile", "FROM python:3\nRUN pip install flask gunicorn\n")],
    &["python3"],
    &[
        "BIN/python3 -m venv VENV",
        "VENV/bin/python -m pip install --no-input --disable-pip-version-check flask gunicorn",
    ],
)]
#[case::a_package(
    &[("pyproject.toml", "[build-system]\nrequires = []\n")],
    &["python"],
    &[
        "BIN/python -m venv VENV",
        "VENV/bin/python -m pip install --no-input --disable-pip-version-check -e .",
    ],
)]
#[case::uv(&[("pyproject.toml", ""), ("uv.lock", "")], &["python3", "uv"], &[
    "BIN/uv sync --frozen --no-dev --compile-bytecode --python BIN/python3",
])]
#[case::uv_that_is_not_there(&[("pyproject.toml", ""), ("uv.lock", "")], &["python3"], &[
    "BIN/python3 -m venv VENV.tools",
    "VENV.tools/bin/python -m pip install --no-input --disable-pip-version-check uv",
    "VENV.tools/bin/uv sync --frozen --no-dev --compile-bytecode --python BIN/python3",
])]
#[case::poetry(
    &[("pyproject.toml", "[tool.poetry]\nname = 'p'\npackage-mode = false\n[build-system]\n"), ("poetry.lock", "")],
    &["python3", "poetry"],
    &[
        "BIN/python3 -m venv VENV",
        "BIN/poetry install --only main --compile --no-interaction --no-ansi --no-root",
    ],
)]
#[case::a_package_of_poetry(
    &[("pyproject.toml", "[tool.poetry]\nname = 'my-p'\n[build-system]\n"), ("poetry.lock", ""), ("my_p/__init__.py", "")],
    &["python3", "poetry"],
    &[
        "BIN/python3 -m venv VENV",
        "BIN/poetry install --only main --compile --no-interaction --no-ansi",
    ],
)]
#[case::pipenv(&[("Pipfile", ""), ("Pipfile.lock", "{}")], &["python3", "pipenv"], &[
    "BIN/python3 -m venv VENV",
    "BIN/pipenv sync",
])]
#[case::pipenv_without_a_lock(&[("Pipfile", "")], &["python3", "pipenv"], &[
    "BIN/python3 -m venv VENV",
    "BIN/pipenv install --skip-lock",
])]
fn steps(#[case] files: &[(&str, &str)], #[case] programs: &[&str], #[case] want: &[&str]) {
    let (dir, image) = project(files);
    let env = path_with(dir.path(), programs);
    let venv = plan(dir.path(), &image, &env);
    let path = venv.path().display().to_string();
    let short = |argv: &[String]| {
        argv.join(" ")
            .replace(&path, "VENV")
            .replace(&image.source.display().to_string(), "S")
            .replace(&env[0].1, "BIN")
    };
    let got: Vec<String> = venv.steps().iter().map(|s| short(&s.argv)).collect();
    let (first, rest) = got.split_first().unwrap();
    let (last, made) = rest.split_last().unwrap();
    let (cleaned, made) = made.split_last().unwrap();
    assert_eq!(first, "rm -rf -- VENV VENV.tools");
    assert_eq!(made, want);
    assert_eq!(cleaned, "rm -rf -- VENV.tools");
    assert_eq!(last, "touch -- VENV/.devenv-complete");
    for step in venv.steps() {
        assert_eq!(step.cwd, image.source);
        let of = |name: &str| {
            step.env
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(of("LANG"), Some("C"));
        // That of the terminal is not installed into.
        assert_ne!(of("VIRTUAL_ENV"), Some("/elsewhere"));
    }
}

#[test]
fn tools_that_install_into_the_active_environment_find_ours() {
    let files = [("pyproject.toml", "[tool.poetry]\n"), ("poetry.lock", "")];
    let (dir, image) = project(&files);
    let env = path_with(dir.path(), &["python3", "poetry"]);
    let venv = plan(dir.path(), &image, &env);
    let step = venv
        .steps()
        .iter()
        .find(|s| s.argv[0].ends_with("/poetry"))
        .unwrap();
    let of = |name: &str| {
        step.env
            .iter()
            .filter(|(n, _)| n == name)
            .collect::<Vec<_>>()
    };
    let path = venv.path().display().to_string();
    assert_eq!(
        of("VIRTUAL_ENV"),
        [&("VIRTUAL_ENV".to_owned(), path.clone())]
    );
    assert_eq!(
        of("PATH"),
        [&("PATH".to_owned(), format!("{path}/bin:{}", env[0].1))]
    );
}

#[test]
fn only_what_decides_the_contents_makes_another_one() {
    let files = [
        ("requirements.txt", "-r more.txt\n"),
        ("more.txt", "x\n"),
        ("main.py", "1"),
    ];
    let (dir, image) = project(&files);
    let mut env = path_with(dir.path(), &["python3"]);
    let first = plan(dir.path(), &image, &env);
    let name = first
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let (image_part, hash) = name.rsplit_once('-').unwrap();
    assert_eq!(image_part, "a-b");
    assert!(hash.len() == 12 && hash.chars().all(|c| c.is_ascii_hexdigit()));
    fs::write(image.source.join("main.py"), "2").unwrap();
    env.push(("OTHER".into(), "1".into()));
    assert_eq!(plan(dir.path(), &image, &env).path(), first.path());
    fs::write(image.source.join("more.txt"), "y\n").unwrap();
    let second = plan(dir.path(), &image, &env);
    assert_ne!(second.path(), first.path());
    // Another interpreter behind the same name.
    let python = dir.path().join("tools/python3");
    fs::rename(&python, dir.path().join("tools/python3.99")).unwrap();
    std::os::unix::fs::symlink("python3.99", &python).unwrap();
    assert_ne!(plan(dir.path(), &image, &env).path(), second.path());
}

#[test]
fn a_version_managers_stand_in_is_told_apart_by_what_it_reads() {
    let (dir, image) = project(&[("requirements.txt", "x\n")]);
    let shims = dir.path().join("pyenv/shims");
    fs::create_dir_all(&shims).unwrap();
    fs::write(shims.join("python3"), "").unwrap();
    fs::set_permissions(shims.join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
    let env = vec![("PATH".to_owned(), shims.display().to_string())];
    let first = plan(dir.path(), &image, &env);
    fs::write(dir.path().join("pyenv/version"), "3.11.7\n").unwrap();
    let second = plan(dir.path(), &image, &env);
    fs::write(dir.path().join(".python-version"), "3.12.1\n").unwrap();
    let third = plan(dir.path(), &image, &env);
    let all: BTreeSet<&Path> = [first.path(), second.path(), third.path()].into();
    assert_eq!(all.len(), 3);
}

#[rstest]
#[case::pyenv("pyenv/versions")]
#[case::asdf("asdf/installs/python")]
fn what_a_stand_in_stands_for_is_taken_itself(#[case] kept: &str) {
    let (dir, mut image) = project(&[("requirements.txt", "x\n")]);
    image.python.as_mut().unwrap().version = Some("3.12".to_owned());
    let manager = dir.path().join(kept.split_once('/').unwrap().0);
    let shims = manager.join("shims");
    fs::create_dir_all(&shims).unwrap();
    for program in ["python3", "python3.12"] {
        fs::write(shims.join(program), "").unwrap();
        fs::set_permissions(shims.join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let env = vec![("PATH".to_owned(), shims.display().to_string())];
    let interpreter = |venv: &Venv| format!("{:?}", venv.steps()[1]);
    // It stands for nothing: the version is not there any more.
    let fallback = plan(dir.path(), &image, &env);
    let other = shims.join("python3").display().to_string();
    assert!(
        interpreter(&fallback).contains(&format!("{other}\"")),
        "{fallback:?}"
    );
    let bin = dir.path().join(kept).join("3.12.1/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("python3.12"), "").unwrap();
    let itself = plan(dir.path(), &image, &env);
    let wanted = bin.join("python3.12").display().to_string();
    assert!(interpreter(&itself).contains(&wanted), "{itself:?}");
}

#[test]
fn what_can_not_be_planned() {
    let (dir, image) = project(&[("requirements.txt", "x\n")]);
    let nothing = path_with(dir.path(), &[]);
    let state = dir.path().join(".devenv");
    let error = Venv::plan(&state, &image, &nothing).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a/b needs Python, and PATH has no python3"
    );
    let env = path_with(dir.path(), &["python3"]);
    fs::remove_file(image.source.join("requirements.txt")).unwrap();
    let error = Venv::plan(&state, &image, &env).unwrap_err();
    assert!(matches!(error, VenvError::Read { path, .. } if path.ends_with("requirements.txt")));
    let (dir, image) = project(&[("main.go", "")]);
    assert_eq!(Venv::plan(dir.path(), &image, &env).unwrap(), None);
}

fn env_of_this_process() -> Vec<(String, String)> {
    std::env::vars().collect()
}

fn run(step: &HostCommand) {
    let output = Command::new(&step.argv[0])
        .args(&step.argv[1..])
        .env_clear()
        .envs(step.env.iter().cloned())
        .current_dir(&step.cwd)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {said}", step.argv);
}

/// Needs python3-venv; nothing of the network.
#[test]
fn one_that_was_given_up_is_made_anew_and_a_whole_one_is_kept() {
    let files = [
        ("pyproject.toml", "[project]\nname = 'p'\n"),
        ("uv.lock", ""),
    ];
    let (dir, mut image) = project(&files);
    // Nothing to install.
    image.python.as_mut().unwrap().kind = PythonKind::Pyproject;
    let mut env = env_of_this_process();
    env.retain(|(n, _)| n != "PATH");
    let python = Tools::new(&env_of_this_process()).python(None).unwrap();
    let bin = dir.path().join("only-python");
    fs::create_dir_all(&bin).unwrap();
    fs::write(
        bin.join("python3"),
        format!("#!/bin/sh\nexec {} \"$@\"\n", python.display()),
    )
    .unwrap();
    fs::set_permissions(bin.join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
    env.push(("PATH".into(), format!("{}:/usr/bin:/bin", bin.display())));
    let venv = plan(dir.path(), &image, &env);
    venv.prepare((0, 0)).unwrap();
    assert!(matches!(venv.finish(), Err(VenvError::Incomplete { .. })));
    let steps = venv.steps();
    for step in &steps[..steps.len() - 1] {
        run(step);
    }
    fs::write(venv.path().join("half-made"), "").unwrap();
    assert!(venv.finish().is_err());
    let again = plan(dir.path(), &image, &env);
    assert_eq!(again, venv, "everything is to be run again");
    for step in again.steps() {
        run(step);
    }
    again.finish().unwrap();
    assert!(!venv.path().join("half-made").exists());
    let kept = plan(dir.path(), &image, &env);
    assert_eq!(kept.path(), venv.path());
    assert!(kept.steps().is_empty());
    let active = kept.activate(&env);
    let output = Command::new("python")
        .args(["-c", "import sys; print(sys.prefix)"])
        .env_clear()
        .envs(active)
        .output()
        .unwrap();
    let prefix = String::from_utf8(output.stdout).unwrap();
    let real = venv.path().canonicalize().unwrap();
    assert_eq!(Path::new(prefix.trim()).canonicalize().unwrap(), real);
    // Without its interpreter it is no more.
    fs::remove_file(venv.path().join("bin/python")).unwrap();
    assert!(!plan(dir.path(), &image, &env).steps().is_empty());
}

/// Needs python3-venv, and fetches a package of 6 kB from the package index.
#[test]
fn requirements_are_installed() {
    let (dir, image) = project(&[("requirements.txt", "iniconfig==2.0.0\n")]);
    let env = env_of_this_process();
    let venv = plan(dir.path(), &image, &env);
    venv.prepare((0, 0)).unwrap();
    for step in venv.steps() {
        run(step);
    }
    venv.finish().unwrap();
    let output = Command::new(venv.path().join("bin/python"))
        .args(["-c", "import iniconfig"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // Pods can't compile what they may not write to.
    let compiled = Command::new("find")
        .arg(venv.path().join("lib"))
        .args(["-path", "*iniconfig/__pycache__/*.pyc"])
        .output()
        .unwrap();
    assert!(!compiled.stdout.is_empty());
}

#[test]
fn those_that_nobody_uses_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(FOLDER);
    prune(dir.path(), &BTreeSet::new());
    for name in [
        "a-111111111111",
        "a-222222222222",
        "a-222222222222.tools",
        "b-333333333333",
    ] {
        fs::create_dir_all(folder.join(name).join("lib")).unwrap();
    }
    prune(dir.path(), &[folder.join("a-222222222222")].into());
    let mut left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["a-222222222222", "a-222222222222.tools"]);
}
