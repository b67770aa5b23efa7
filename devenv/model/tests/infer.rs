//! What is inferred about images: one source tree each, and everything that is said of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use devenv_model::{ImageSource, LoadOptions, Loaded, PythonKind, Reload, Topology};
use rstest::rstest;

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: api, image: api, ports: [{containerPort: 5000}]}]}
";

type Files<'f> = &'f [(&'f str, &'f str)];

/// A project with one image, whose source is the folder `s`, and more in its section.
fn project(more: &str, files: Files<'_>) -> (tempfile::TempDir, Loaded) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let source = if more.contains("source =") {
        ""
    } else {
        "source = \"s\"\n"
    };
    write(
        "devenv.toml",
        &format!("[project]\nname = \"p\"\nmanifests = [\"k8s\"]\n[image.api]\n{source}{more}\n"),
    );
    write("k8s/api.yaml", DEPLOYMENT);
    fs::create_dir_all(dir.path().join("s")).unwrap();
    for (name, text) in files {
        write(name, text);
    }
    let loaded = Topology::load(dir.path(), &LoadOptions::default());
    (dir, loaded)
}

fn messages(loaded: &Loaded) -> String {
    let texts: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

#[track_caller]
fn image(more: &str, files: Files<'_>) -> ImageSource {
    let (_dir, loaded) = project(more, files);
    let text = messages(&loaded);
    assert!(loaded.problems.is_empty(), "{text}");
    loaded.topology.unwrap().images()["api"].clone()
}

/// `key = value  # why`, line by line.
fn told(image: &ImageSource) -> Vec<String> {
    let lines = image.inferred.iter();
    lines
        .map(|i| format!("{} = {}  # {}", i.key, i.value, i.why))
        .collect()
}

#[rstest]
#[case::requirements_and_fastapi(
    &[("s/requirements.txt", "fastapi\nuvicorn\n"), ("s/main.py", "from fastapi import FastAPI\n\napp = FastAPI()\n")],
    &["python = s/requirements.txt  # s/requirements.txt is there",
      "run = exec uvicorn main:app --host 0.0.0.0 --port ${PORT:-5000}  # s/main.py:3 makes the application app"],
)]
#[case::flask_with_gunicorn_in_a_folder(
    &[("s/requirements.txt", "flask\ngunicorn==22\n"), ("s/app/main.py", "api = Flask(__name__)\n")],
    &["python = s/requirements.txt  # s/requirements.txt is there",
      "run = exec gunicorn --bind 0.0.0.0:${PORT:-5000} app.main:api  # s/app/main.py:1 makes the application api"],
)]
#[case::flask_alone(
    &[("s/requirements.txt", "flask\n"), ("s/app.py", "app = Flask(__name__)\n")],
    &["python = s/requirements.txt  # s/requirements.txt is there",
      "run = exec flask --app app:app run --host 0.0.0.0 --port ${PORT:-5000}  # s/app.py:1 makes the application app"],
)]
#[case::django(
    &[("s/requirements.txt", "django\n"), ("s/manage.py", "")],
    &["python = s/requirements.txt  # s/requirements.txt is there",
      "run = exec python manage.py runserver --noreload 0.0.0.0:${PORT:-5000}  # s/manage.py is Django's"],
)]
#[case::a_program_without_dependencies(
    &[("s/main.py", "print(1)\n")],
    &["run = python3 main.py  # s/main.py is there"],
)]
#[case::uv(
    &[("s/pyproject.toml", "[project]\nname='a'\n"), ("s/uv.lock", ""), ("s/main.py", "")],
    &["python = s/pyproject.toml, s/uv.lock  # s/uv.lock is there", "run = python main.py  # s/main.py is there"],
)]
#[case::poetry(
    &[("s/pyproject.toml", "[tool.poetry.dependencies]\na='1'\n"), ("s/poetry.lock", ""), ("s/main.py", "")],
    &["python = s/pyproject.toml, s/poetry.lock  # s/poetry.lock is there", "run = python main.py  # s/main.py is there"],
)]
#[case::pipenv(
    &[("s/Pipfile", ""), ("s/Pipfile.lock", "{}"), ("s/app.py", "")],
    &["python = s/Pipfile, s/Pipfile.lock  # s/Pipfile is there", "run = python app.py  # s/app.py is there"],
)]
#[case::dependencies_of_a_project_that_is_no_package(
    &[("s/pyproject.toml", "[project]\nname = 'a'\ndependencies = ['fastapi>=0.1', 'uvicorn']\n"), ("s/main.py", "app = FastAPI()\n")],
    &["python = s/pyproject.toml, fastapi>=0.1, uvicorn  # s/pyproject.toml has [project]",
      "run = exec uvicorn main:app --host 0.0.0.0 --port ${PORT:-5000}  # s/main.py:1 makes the application app"],
)]
#[case::a_package(
    &[("s/pyproject.toml", "[build-system]\nrequires = ['hatchling']\n"), ("s/setup.cfg", ""), ("s/main.py", "")],
    &["python = s/pyproject.toml, s/setup.cfg  # s/pyproject.toml has [build-system]", "run = python main.py  # s/main.py is there"],
)]
#[case::settings_of_tools_alone_make_no_environment(
    &[("s/pyproject.toml", "[tool.ruff]\nline-length = 80\n"), ("s/main.py", "")],
    &["run = python3 main.py  # s/main.py is there"],
)]
#[case::npm_with_a_plain_start_script(
    &[("s/package.json", r#"{"scripts": {"start": "node src/server.js --x"}, "dependencies": {"a": "1"}}"#), ("s/package-lock.json", "{}")],
    &["install = npm ci --no-audit --no-fund  # s/package-lock.json is there",
      "run = node src/server.js --x  # s/package.json scripts.start"],
)]
#[case::a_start_script_that_needs_the_package_manager(
    &[("s/package.json", r#"{"scripts": {"start": "NODE_ENV=production node a.js", "build": "tsc"}, "dependencies": {"a": "1"}}"#), ("s/pnpm-lock.yaml", "")],
    &["install = pnpm install --frozen-lockfile  # s/pnpm-lock.yaml is there",
      "build = pnpm run build  # s/package.json scripts.build",
      "run = pnpm run start  # s/package.json scripts.start"],
)]
#[case::hooks_are_the_package_managers(
    &[("s/package.json", r#"{"scripts": {"prestart": "x", "start": "node a.js"}}"#)],
    &["run = npm run start  # s/package.json scripts.start"],
)]
#[case::yarn_one(
    &[("s/package.json", r#"{"main": "a.js"}"#), ("s/yarn.lock", "# yarn lockfile v1\n")],
    &["install = yarn install --frozen-lockfile  # s/yarn.lock is there", "run = node a.js  # s/package.json main"],
)]
#[case::yarn_later(
    &[("s/package.json", "{}"), ("s/yarn.lock", "#\n\n__metadata:\n  version: 8\n"), ("s/index.js", "")],
    &["install = yarn install --immutable  # s/yarn.lock is there", "run = node index.js  # s/index.js is there"],
)]
#[case::bun(
    &[("s/package.json", r#"{"main": "a.js"}"#), ("s/bun.lock", "")],
    &["install = bun install --frozen-lockfile  # s/bun.lock is there", "run = node a.js  # s/package.json main"],
)]
#[case::no_lock_file(
    &[("s/package.json", r#"{"main": "a.js", "dependencies": {"express": "4"}}"#)],
    &["install = npm install --no-audit --no-fund --no-package-lock  # s/package.json has dependencies, and no lock file is there",
      "run = node a.js  # s/package.json main"],
)]
#[case::a_workspaces_lock_file(
    &[("package.json", r#"{"workspaces": ["s"]}"#), ("package-lock.json", "{}"), ("s/package.json", r#"{"main": "a.js"}"#)],
    &["install = npm ci --no-audit --no-fund  # package-lock.json is there",
      "watch = package-lock.json  # s/package.json",
      "run = node a.js  # s/package.json main"],
)]
#[case::another_projects_lock_file_above(
    &[("package.json", "{}"), ("package-lock.json", "{}"), ("s/package.json", r#"{"main": "a.js"}"#)],
    &["run = node a.js  # s/package.json main"],
)]
#[case::go(
    &[("s/go.mod", "module x\nreplace y => ../y\n"), ("y/go.mod", "module y"), ("s/main.go", "package main\n")],
    &["watch = y  # s/go.mod",
      "build = go build -o bin/api .  # s/go.mod is there",
      "ignore = /bin/api  # the build writes it",
      "run = bin/api  # s/go.mod is there"],
)]
#[case::go_in_cmd(
    &[("s/go.mod", ""), ("s/cmd/tool/main.go", "package tool\n"), ("s/cmd/web/main.go", "package main\n")],
    &["build = go build -o bin/api ./cmd/web  # s/cmd/web is a main package",
      "ignore = /bin/api  # the build writes it",
      "run = bin/api  # s/cmd/web is a main package"],
)]
#[case::go_with_the_images_own_command(
    &[("s/go.mod", ""), ("s/cmd/api/main.go", "package main\n"), ("s/cmd/web/main.go", "package main\n")],
    &["build = go build -o bin/api ./cmd/api  # s/cmd/api is a main package",
      "ignore = /bin/api  # the build writes it",
      "run = bin/api  # s/cmd/api is a main package"],
)]
#[case::rust_alone(
    &[("s/Cargo.toml", "[package]\nname = 'web'\n"), ("s/src/main.rs", "")],
    &["build = cargo build --target-dir target -p web --bin web  # s/Cargo.toml package",
      "run = target/debug/web  # s/Cargo.toml package"],
)]
#[case::rust_in_a_workspace(
    &[("Cargo.toml", "[workspace]\nmembers = ['s', 'lib']\n[workspace.dependencies]\nlib = { path = 'lib' }\n"), ("Cargo.lock", ""),
      ("lib/Cargo.toml", "[package]\nname = 'lib'\n[dependencies]\nmore = { path = '../more' }\n"), ("more/Cargo.toml", "[package]\nname = 'more'\n"),
      ("s/Cargo.toml", "[package]\nname = 'web'\ndefault-run = 'b'\n[dependencies]\nlib = { workspace = true }\n"), ("s/src/bin/a.rs", ""), ("s/src/bin/b/main.rs", "")],
    &["watch = Cargo.toml  # s/Cargo.toml",
      "watch = Cargo.lock  # s/Cargo.toml",
      "watch = lib  # s/Cargo.toml",
      "watch = more  # s/Cargo.toml",
      "build = cargo build --locked --target-dir ../target -p web --bin b  # s/Cargo.toml default-run",
      "run = ../target/debug/b  # s/Cargo.toml default-run"],
)]
#[case::rust_with_a_target_folder_of_its_own(
    &[(".cargo/config.toml", "[build]\ntarget-dir = 'out'\n"), ("s/Cargo.toml", "[package]\nname = 'api'\n[[bin]]\nname = 'x'\npath = 'src/main.rs'\n"), ("s/src/main.rs", "")],
    &["build = cargo build --target-dir ../out -p api --bin x  # s/Cargo.toml package",
      "run = ../out/debug/x  # s/Cargo.toml package"],
)]
#[case::maven(
    &[("s/pom.xml", "<project><artifactId>a</artifactId><version>1</version></project>"), ("s/mvnw", "")],
    &["build = sh ./mvnw -q -B -DskipTests package  # s/pom.xml is there",
      "run = java -jar target/a-1.jar  # s/pom.xml is there"],
)]
#[case::gradle(
    &[("s/build.gradle.kts", "plugins { id(\"org.springframework.boot\") }")],
    &["build = gradle -q --console=plain bootJar  # s/build.gradle.kts is there",
      "run = exec java -jar \"$(ls -t build/libs/*.jar | grep -Ev -- '-(plain|sources|javadoc)[.]jar$' | head -n 1)\"  # s/build.gradle.kts is there"],
)]
#[case::rack(
    &[("s/Gemfile", "gem 'puma'\n"), ("s/config.ru", "")],
    &["install = bundle install  # s/Gemfile is there",
      "run = exec bundle exec puma -b tcp://0.0.0.0:${PORT:-5000}  # s/config.ru is there"],
)]
#[case::rails(
    &[("s/Gemfile", "gem 'rails'\n"), ("s/bin/rails", ""), ("s/config.ru", "")],
    &["install = bundle install  # s/Gemfile is there",
      "run = exec bundle exec rails server -b 0.0.0.0 -p ${PORT:-5000}  # s/bin/rails is there"],
)]
fn from_files(#[case] files: Files<'_>, #[case] want: &[&str]) {
    assert_eq!(told(&image("", files)), want);
}

#[rstest]
#[case::the_usual_python(
    "FROM python:3.12-slim\nWORKDIR /app\nENV PYTHONUNBUFFERED=1 PATH=/x:$PATH\nCOPY requirements.txt .\nRUN pip install --no-cache-dir -r requirements.txt\nCOPY . .\nEXPOSE 5000\nCMD [\"uvicorn\", \"main:app\", \"--host\", \"0.0.0.0\", \"--port\", \"5000\"]\n",
    &[("s/requirements.txt", "fastapi\n"), ("s/main.py", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "env.PYTHONUNBUFFERED = 1  # s/Dockerfile:3 ENV",
      "python = s/requirements.txt  # s/Dockerfile:5 RUN pip install",
      "run = uvicorn main:app --host 0.0.0.0 --port 5000  # s/Dockerfile:8 CMD"],
)]
#[case::packages_in_the_dockerfile(
    "FROM python:3.11\nWORKDIR /code\nRUN pip install --upgrade pip && pip install fastapi \"uvicorn[standard]\"\nCOPY . /code\nCMD uvicorn main:app --port $PORT\n",
    &[("s/main.py", "")],
    &["image_workdir = /code  # s/Dockerfile:2 WORKDIR",
      "python = fastapi, uvicorn[standard]  # s/Dockerfile:3 RUN pip install",
      "run = uvicorn main:app --port $PORT  # s/Dockerfile:5 CMD"],
)]
#[case::a_virtual_environment_of_another_stage(
    "FROM python:3.12 AS build\nRUN python -m venv /opt/venv && /opt/venv/bin/pip install x\nCOPY requirements/prod.txt /r.txt\nRUN . /opt/venv/bin/activate; pip install -r requirements/prod.txt\nFROM python:3.12-slim\nCOPY --from=build /opt/venv /opt/venv\nENV PATH=\"/opt/venv/bin:$PATH\" VIRTUAL_ENV=/opt/venv\nWORKDIR /srv/app\nCOPY app ./app\nCMD [\"/opt/venv/bin/python\", \"-m\", \"app\"]\n",
    &[("s/requirements/prod.txt", "-r base.txt\n"), ("s/requirements/base.txt", "x\n"), ("s/app/__main__.py", ""), ("s/main.py", "")],
    &["image_workdir = /srv/app  # s/Dockerfile:8 WORKDIR",
      "python = s/requirements/prod.txt, s/requirements/base.txt  # s/Dockerfile:4 RUN pip install",
      "run = python -m app  # s/Dockerfile:10 CMD"],
)]
#[case::a_path_of_the_image(
    "FROM python:3\nWORKDIR /app\nCOPY . /app\nENTRYPOINT [\"python\"]\nCMD [\"/app/main.py\", \"--config\", \"/etc/x\"]\n",
    &[("s/main.py", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "run = python3 main.py --config /etc/x  # s/Dockerfile:4 ENTRYPOINT"],
)]
#[case::the_source_is_a_folder_of_the_context(
    "FROM python:3\nWORKDIR /app\nCOPY requirements.txt .\nRUN pip install -r requirements.txt\nCOPY src/ .\nCMD [\"python\", \"/app/main.py\"]\n",
    &[("s/requirements.txt", "x\n"), ("s/src/main.py", ""), ("s/main.py", "")],
    &["workdir = s/src  # s/Dockerfile:2 WORKDIR holds what is copied from there",
      "image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "python = s/requirements.txt  # s/Dockerfile:4 RUN pip install",
      "run = python main.py  # s/Dockerfile:6 CMD"],
)]
#[case::the_context_is_the_project(
    "FROM python:3\nWORKDIR /app\nCOPY s/requirements.txt ./\nRUN pip install -r requirements.txt\nCOPY s ./\nCMD [\"python\", \"main.py\"]\n",
    &[("s/requirements.txt", "x\n"), ("s/main.py", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "python = s/requirements.txt  # s/Dockerfile:4 RUN pip install",
      "run = python main.py  # s/Dockerfile:6 CMD"],
)]
#[case::runners_and_init_programs_are_not_needed(
    "FROM ghcr.io/astral-sh/uv:python3.12-slim\nWORKDIR /app\nCOPY . .\nRUN uv sync --frozen\nENTRYPOINT [\"/usr/bin/tini\", \"-g\", \"--\"]\nCMD [\"uv\", \"run\", \"--no-sync\", \"uvicorn\", \"a:app\", \"--reload\"]\n",
    &[("s/pyproject.toml", ""), ("s/uv.lock", ""), ("s/a.py", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "python = s/pyproject.toml, s/uv.lock  # s/Dockerfile:4 RUN uv sync",
      "run = uvicorn a:app  # s/Dockerfile:5 ENTRYPOINT without --reload, as devenv reloads it"],
)]
#[case::a_script_that_is_not_executable(
    "FROM python:3\nWORKDIR /app\nCOPY . .\nRUN chmod +x entrypoint.sh\nENTRYPOINT [\"./entrypoint.sh\", \"web\"]\n",
    &[("s/entrypoint.sh", "#!/usr/bin/env bash\n"), ("s/main.py", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "run = /usr/bin/env bash ./entrypoint.sh web  # s/Dockerfile:5 ENTRYPOINT"],
)]
#[case::a_line_for_a_shell(
    "FROM python:3\nWORKDIR /app\nCOPY . .\nCMD cd web && python main.py\n",
    &[("s/web/main.py", ""), ("s/main.py", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "run = cd web && python main.py  # s/Dockerfile:4 CMD"],
)]
#[case::another_shell(
    "FROM python:3\nSHELL [\"/bin/bash\", \"-c\"]\nCOPY . /x\nCMD exec python3 main.py \"$A\"\n",
    &[("s/main.py", "")],
    &["run = /bin/bash -c 'exec python3 main.py \"$A\"'  # s/Dockerfile:4 CMD"],
)]
#[case::the_usual_node(
    "FROM node:20-alpine\nWORKDIR /usr/src/app\nCOPY package*.json ./\nRUN npm ci --omit=dev\nCOPY . .\nENV NODE_ENV=production NPM_CONFIG_LOGLEVEL=warn\nUSER node\nCMD [\"npm\", \"start\"]\n",
    &[("s/package.json", r#"{"scripts": {"start": "node server.js", "build": "x"}}"#), ("s/package-lock.json", "{}"), ("s/server.js", "")],
    &["image_workdir = /usr/src/app  # s/Dockerfile:2 WORKDIR",
      "env.NODE_ENV = production  # s/Dockerfile:6 ENV",
      "install = npm ci --no-audit --no-fund  # s/package-lock.json is there",
      "run = node server.js  # s/Dockerfile:8 CMD, s/package.json scripts.start"],
)]
#[case::typescript_in_stages(
    "FROM node:20 AS build\nWORKDIR /app\nCOPY . .\nRUN npm ci && npm run build\nFROM node:20-slim\nWORKDIR /app\nCOPY --from=build /app/dist ./dist\nCMD [\"node\", \"/app/dist/main.js\"]\n",
    &[("s/package.json", r#"{"scripts": {"build": "tsc"}}"#), ("s/package-lock.json", "{}")],
    &["image_workdir = /app  # s/Dockerfile:6 WORKDIR",
      "install = npm ci --no-audit --no-fund  # s/package-lock.json is there",
      "build = npm run build  # s/Dockerfile:4 RUN",
      "run = node dist/main.js  # s/Dockerfile:8 CMD"],
)]
#[case::a_program_of_a_package(
    "FROM node:20\nWORKDIR /app\nCOPY . .\nCMD [\"next\", \"start\", \"-p\", \"3000\"]\n",
    &[("s/package.json", r#"{"dependencies": {"next": "14"}}"#), ("s/package-lock.json", "{}")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "install = npm ci --no-audit --no-fund  # s/package-lock.json is there",
      "run = node_modules/.bin/next start -p 3000  # s/Dockerfile:4 CMD"],
)]
#[case::nodemon(
    "FROM node:20\nWORKDIR /app\nCOPY . .\nCMD [\"nodemon\", \"server.js\"]\n",
    &[("s/package.json", "{}"), ("s/server.js", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "run = node server.js  # s/Dockerfile:4 CMD without nodemon, as devenv reloads it"],
)]
#[case::go_in_stages(
    "FROM golang:1.22 AS build\nWORKDIR /src\nCOPY . .\nENV CGO_ENABLED=0\nRUN go build -tags netgo -ldflags=\"-s -w\" -o /out/server ./cmd/server\nFROM gcr.io/distroless/static\nCOPY --from=build /out/server /server\nEXPOSE 5000\nENTRYPOINT [\"/server\"]\nCMD [\"--port\", \"5000\"]\n",
    &[("s/go.mod", ""), ("s/cmd/server/main.go", "package main\n"), ("s/cmd/other/main.go", "package main\n")],
    &["build = go build -tags netgo -o bin/api ./cmd/server  # s/Dockerfile:5 RUN go build",
      "ignore = /bin/api  # the build writes it",
      "run = bin/api --port 5000  # s/Dockerfile:5 RUN go build; s/Dockerfile:9 ENTRYPOINT"],
)]
#[case::go_in_one_stage(
    "FROM golang:1\nWORKDIR /app\nCOPY . .\nRUN go build -o main .\nCMD ./main --port $PORT\n",
    &[("s/go.mod", ""), ("s/main.go", "package main\n")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "build = go build -o bin/api .  # s/Dockerfile:4 RUN go build",
      "ignore = /bin/api  # the build writes it",
      "run = bin/api --port $PORT  # s/Dockerfile:4 RUN go build; s/Dockerfile:5 CMD"],
)]
#[case::rust_in_stages(
    "FROM rust:1 AS build\nWORKDIR /src\nCOPY . .\nRUN cargo build --release --bin web\nFROM debian:12-slim\nCOPY --from=build /src/target/release/web /usr/local/bin/\nCMD [\"web\", \"serve\"]\n",
    &[("s/Cargo.toml", "[package]\nname = 'x'\n"), ("s/src/bin/web.rs", ""), ("s/src/bin/tool.rs", "")],
    &["build = cargo build --target-dir target -p x --bin web  # s/Dockerfile:4 RUN cargo build",
      "run = target/debug/web serve  # s/Dockerfile:4 RUN cargo build; s/Dockerfile:7 CMD"],
)]
#[case::java_in_stages(
    "FROM maven:3 AS build\nCOPY . .\nRUN mvn package\nFROM eclipse-temurin:21-jre\nWORKDIR /app\nCOPY --from=build /target/*.jar app.jar\nENTRYPOINT [\"java\", \"-Xmx64m\", \"-jar\", \"app.jar\", \"--x\"]\n",
    &[("s/pom.xml", "<project><artifactId>a</artifactId><version>1</version></project>")],
    &["image_workdir = /app  # s/Dockerfile:5 WORKDIR",
      "build = mvn -q -B -DskipTests package  # s/pom.xml is there",
      "run = java -Xmx64m -jar target/a-1.jar --x  # s/pom.xml is there; s/Dockerfile:7 ENTRYPOINT"],
)]
#[case::java_with_options_of_the_shell(
    "FROM maven:3\nCOPY . .\nENTRYPOINT [\"sh\", \"-c\", \"exec java $JAVA_OPTS -jar /app.jar --x\"]\n",
    &[("s/pom.xml", "<project><artifactId>a</artifactId><version>1</version></project>")],
    &["build = mvn -q -B -DskipTests package  # s/pom.xml is there",
      "run = exec java $JAVA_OPTS -jar target/a-1.jar --x  # s/pom.xml is there; s/Dockerfile:3 ENTRYPOINT"],
)]
#[case::gradle_with_options(
    "FROM gradle:8\nCOPY . .\nCMD java -Xmx64m -Da=b -jar app.jar\n",
    &[("s/build.gradle", "")],
    &["build = gradle -q --console=plain assemble  # s/build.gradle is there",
      "run = exec java -Xmx64m -Da=b -jar \"$(ls -t build/libs/*.jar | grep -Ev -- '-(plain|sources|javadoc)[.]jar$' | head -n 1)\"  # s/build.gradle is there"],
)]
#[case::a_shell_in_the_list(
    "FROM golang:1\nWORKDIR /app\nCOPY . .\nRUN go build -o server\nCMD [\"sh\", \"-c\", \"./server --port $PORT\"]\n",
    &[("s/go.mod", ""), ("s/main.go", "package main\n")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "build = go build -o bin/api .  # s/Dockerfile:4 RUN go build",
      "ignore = /bin/api  # the build writes it",
      "run = bin/api --port $PORT  # s/Dockerfile:4 RUN go build; s/Dockerfile:5 CMD"],
)]
#[case::a_script_that_a_runner_takes(
    "FROM python:3\nWORKDIR /app\nCOPY . .\nCMD [\"uv\", \"run\", \"main.py\", \"--a=b\"]\n",
    &[("s/main.py", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "run = python3 ./main.py --a=b  # s/Dockerfile:4 CMD"],
)]
#[case::django_does_not_reload_itself(
    "FROM python:3\nWORKDIR /app\nCOPY . .\nCMD python manage.py runserver 0.0.0.0:8000\n",
    &[("s/manage.py", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR",
      "run = python3 manage.py runserver 0.0.0.0:8000 --noreload  # s/Dockerfile:4 CMD with --noreload, as devenv reloads it"],
)]
#[case::variables_before_the_program(
    "FROM node:20\nWORKDIR /app\nCOPY . .\nCMD A=1 node a.js\n",
    &[("s/package.json", "{}"), ("s/a.js", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR", "run = A=1 node a.js  # s/Dockerfile:4 CMD"],
)]
#[case::the_base_image_tells_the_language(
    "FROM node:20\nWORKDIR /app\nCOPY . .\nCMD [\"node\", \"a.js\"]\n",
    &[("s/package.json", "{}"), ("s/requirements.txt", "x\n"), ("s/a.js", "")],
    &["image_workdir = /app  # s/Dockerfile:2 WORKDIR", "run = node a.js  # s/Dockerfile:4 CMD"],
)]
#[case::folders_of_the_system_stay_visible(
    "FROM python:3\nWORKDIR /usr/local/bin\nCOPY . .\nCMD [\"python3\", \"main.py\"]\n",
    &[("s/main.py", "")],
    &["run = python3 main.py  # s/Dockerfile:4 CMD"],
)]
#[case::a_malformed_name_of_a_variable_is_left_out(
    "FROM python:3\nENV =x A=1\nCOPY . /x\nCMD python3 main.py\n",
    &[("s/main.py", "")],
    &["env.A = 1  # s/Dockerfile:2 ENV", "run = python3 main.py  # s/Dockerfile:4 CMD"],
)]
fn from_dockerfiles(#[case] dockerfile: &str, #[case] files: Files<'_>, #[case] want: &[&str]) {
    let files = [&[("s/Dockerfile", dockerfile)], files].concat();
    assert_eq!(told(&image("", &files)), want);
}

#[rstest]
#[case::nothing_there(
    "", &[],
    "devenv.toml:4:8: error[config::missing-key]: `image.api` has no `run`, and none can be inferred: s has no Dockerfile; s has no file that shows how it is built",
)]
#[case::a_program_of_another_stage(
    "", &[("s/Dockerfile", "FROM x AS build\nFROM scratch\nCOPY --from=build /out/a /a\nCMD [\"/a\"]\n")],
    "s/Dockerfile:4 CMD runs /a, which s/Dockerfile:3 COPY --from=build makes; s has no file",
)]
#[case::a_missing_script(
    "", &[("s/Dockerfile", "FROM python:3\nWORKDIR /app\nCOPY . .\nCMD [\"./start.sh\"]\n"), ("s/lib.py", "")],
    "s/Dockerfile:4 CMD runs ./start.sh, which is not in the source",
)]
#[case::an_empty_program(
    "", &[("s/Dockerfile", "FROM x\nCMD [\"\"]\n")],
    "s/Dockerfile:2 CMD names no program",
)]
#[case::no_command(
    "", &[("s/Dockerfile", "FROM nginx\nCOPY . /usr/share/nginx/html\n")],
    "s/Dockerfile has no CMD and no ENTRYPOINT",
)]
#[case::several_programs(
    "", &[("s/Cargo.toml", "[package]\nname = 'x'\n"), ("s/src/bin/a.rs", ""), ("s/src/bin/b.rs", "")],
    "s/Cargo.toml has no single program",
)]
#[case::several_main_packages(
    "", &[("s/go.mod", ""), ("s/cmd/a/m.go", "package main\n"), ("s/cmd/b/m.go", "package main\n")],
    "neither s nor a folder in its cmd has a single main package",
)]
#[case::a_dockerfile_that_is_not_there(
    "dockerfile = \"s/Dockerfil\"\nrun = \"x\"", &[("s/Dockerfile", "FROM x\n")],
    "devenv.toml:6:14: error[file::missing]: s/Dockerfil does not exist\n  help: did you mean \"Dockerfile\"?",
)]
#[case::a_place_that_is_taken(
    "image_workdir = \"/usr\"\nrun = \"x\"", &[],
    "devenv.toml:6:17: error[config::illegal-value]: `image.api.image_workdir`: \"/usr\" would hide what is there",
)]
#[case::no_absolute_place(
    "image_workdir = \"app\"\nrun = \"x\"", &[],
    "`image.api.image_workdir`: \"app\" is no absolute path",
)]
#[case::no_pattern(
    "ignore = [\"*.log\", \"[z-a]\"]\nrun = \"x\"", &[],
    "devenv.toml:6:20: error[config::illegal-value]: `image.api.ignore[1]` is no pattern",
)]
#[case::no_mode(
    "reload = \"hot\"\nrun = \"x\"", &[],
    "`image.api.reload` is the string \"hot\"\n  expected: one of \"restart\", \"build\", \"sync\" and \"manual\"",
)]
#[case::install_true(
    "install = true\nrun = \"x\"", &[],
    "`image.api.install` is the boolean true\n  expected: a list of program and arguments, a string for sh -c, or false for none",
)]
#[case::python_true(
    "python = true\nrun = \"x\"", &[],
    "`image.api.python` is the boolean true\n  expected: a file such as \"requirements.txt\"",
)]
#[case::requirements_elsewhere(
    "python = [\"s/r.txt\"]\nrun = \"x\"", &[],
    "devenv.toml:6:11: error[file::missing]: s/r.txt does not exist",
)]
fn what_can_not_be_loaded(#[case] more: &str, #[case] files: Files<'_>, #[case] want: &str) {
    let (_dir, loaded) = project(more, files);
    let text = messages(&loaded);
    assert!(loaded.topology.is_none(), "{text}");
    assert!(text.contains(want), "no {want:?} in\n{text}");
    assert_eq!(loaded.problems.len(), 1, "{text}");
}

#[rstest]
#[case::a_dockerfile(
    "s/Dockerfile",
    "FROM x\nNONSENSE y\n",
    "s/Dockerfile:2:1: warning[dockerfile::malformed]: this is no Dockerfile: unknown instruction 'NONSENSE'"
)]
#[case::a_dockerfile_without_a_stage(
    "s/Dockerfile",
    "",
    "s/Dockerfile:1:1: warning[dockerfile::malformed]"
)]
#[case::package_json(
    "s/package.json",
    "{\n\"a\":",
    "s/package.json:2:1: warning[image::malformed-file]: this is not JSON"
)]
#[case::pyproject(
    "s/pyproject.toml",
    "[a\n",
    "s/pyproject.toml:1:1: warning[image::malformed-file]: this is not TOML"
)]
#[case::cargo(
    "s/Cargo.toml",
    "a = 1\nb\n",
    "s/Cargo.toml:2:1: warning[image::malformed-file]: this is not TOML"
)]
#[case::pom(
    "s/pom.xml",
    "<a>\n</b>",
    "s/pom.xml:2:1: warning[image::malformed-file]: this is not XML"
)]
fn what_can_not_be_read_is_told_and_no_error(
    #[case] name: &str,
    #[case] text: &str,
    #[case] want: &str,
) {
    let (_dir, loaded) = project("run = \"x\"", &[(name, text)]);
    let text = messages(&loaded);
    assert!(loaded.topology.is_some(), "{text}");
    assert!(text.contains(want), "no {want:?} in\n{text}");
}

#[test]
fn what_is_written_wins() {
    let files: Files<'_> = &[
        (
            "s/Dockerfile",
            "FROM python:3\nWORKDIR /app\nENV A=1 B=2\nCOPY . .\nCMD python a.py\n",
        ),
        ("s/requirements.txt", "x\n"),
        ("s/other.txt", "-r requirements.txt\n"),
    ];
    let image = image(
        "install = false\npython = \"s/other.txt\"\nbuild = [\"make\"]\nrun = [\"./x\"]\nworkdir = \".\"\nenv = { A = \"3\" }\nreload = \"manual\"\nignore = [\"*.log\"]\ndebug = \"x\"",
        files,
    );
    assert_eq!(image.install, None);
    assert_eq!(image.run.to_string(), "./x");
    assert_eq!(image.entrypoint, 1);
    assert_eq!(image.reload, Reload::Manual);
    assert_eq!(image.ignore, ["*.log"]);
    assert_eq!(image.debug.unwrap().to_string(), "x");
    assert_eq!(
        (image.env["A"].as_str(), image.env["B"].as_str()),
        ("3", "2")
    );
    // The source is not what `workdir` is.
    assert_eq!(image.image_workdir, None);
    let python = image.python.unwrap();
    assert_eq!(python.kind, PythonKind::Requirements);
    assert!(python.files[0].ends_with("s/other.txt"));
    assert!(python.files[1].ends_with("s/requirements.txt"));
    let keys: Vec<&str> = image.inferred.iter().map(|i| i.key.as_str()).collect();
    assert_eq!(keys, ["env.B"]);
}

#[rstest]
#[case("", PythonKind::Requirements, Some("3.12"))]
#[case("python = \"s/uv.lock\"", PythonKind::Uv, Some("3.12"))]
#[case("python = \"s/poetry.lock\"", PythonKind::Poetry, Some("3.12"))]
#[case("python = \"s/Pipfile\"", PythonKind::Pipenv, Some("3.12"))]
#[case("python = \"s/pyproject.toml\"", PythonKind::Pyproject, Some("3.12"))]
fn the_kind_of_an_environment(
    #[case] more: &str,
    #[case] kind: PythonKind,
    #[case] version: Option<&str>,
) {
    let files: Files<'_> = &[
        (
            "s/Dockerfile",
            "FROM python:3.12.1-slim\nRUN pip install -r requirements.txt\nCOPY . /x\nCMD python a.py\n",
        ),
        ("s/requirements.txt", "x\n"),
        ("s/uv.lock", ""),
        ("s/poetry.lock", ""),
        ("s/Pipfile", ""),
        ("s/pyproject.toml", "[project]\ndependencies = ['x']\n"),
    ];
    let python = image(more, files).python.unwrap();
    assert_eq!(python.kind, kind);
    assert_eq!(python.version.as_deref(), version);
    assert!(python.dir.ends_with("s"));
}

#[test]
fn no_environment_where_none_is_wanted() {
    let files: Files<'_> = &[("s/requirements.txt", "x\n"), ("s/main.py", "")];
    assert_eq!(image("python = false", files).python, None);
    assert_eq!(image("install = \"make venv\"", files).python, None);
    assert_eq!(image("run = \"x\"", files).python.unwrap().files.len(), 1);
}

#[test]
fn a_given_run_keeps_a_build_that_makes_it_and_no_other() {
    let files: Files<'_> = &[("s/go.mod", ""), ("s/main.go", "package main\n")];
    assert_eq!(image("run = [\"python3\", \"x.py\"]", files).build, None);
    let image = image("run = [\"./bin/api\", \"--x\"]", files);
    assert_eq!(image.build.unwrap().to_string(), "go build -o bin/api .");
    assert_eq!(image.reload, Reload::Build);
}

#[test]
fn commands_of_another_working_directory_go_to_the_source() {
    let files: Files<'_> = &[
        (
            "s/package.json",
            r#"{"main": "a.js", "scripts": {"build": "x"}}"#,
        ),
        ("s/package-lock.json", "{}"),
        ("s/a.js", ""),
    ];
    let image = image("workdir = \".\"", files);
    assert_eq!(
        image.install.unwrap().to_string(),
        "cd s && npm ci --no-audit --no-fund"
    );
    assert_eq!(image.build.unwrap().to_string(), "cd s && npm run build");
    assert_eq!(image.run.to_string(), "node s/a.js");
}

#[test]
fn how_many_words_arguments_of_a_container_keep() {
    let with = |text: &str| {
        let files: Files<'_> = &[
            ("s/Dockerfile", text),
            ("s/a.sh", "#!/bin/sh -e\n"),
            ("s/main.py", ""),
        ];
        image("", files).entrypoint
    };
    let head = "FROM python:3\nWORKDIR /app\nCOPY . .\n";
    assert_eq!(with(&format!("{head}CMD [\"python3\", \"main.py\"]")), 0);
    assert_eq!(with(&format!("{head}CMD python3 main.py $A")), 0);
    assert_eq!(
        with(&format!(
            "{head}ENTRYPOINT [\"python3\", \"main.py\"]\nCMD [\"x\"]"
        )),
        2
    );
    assert_eq!(
        with(&format!("{head}ENTRYPOINT python3 main.py $A\nCMD x")),
        3
    );
    // An init program before it is left out, an interpreter that it needs here comes to it.
    assert_eq!(
        with(&format!(
            "{head}ENTRYPOINT [\"tini\", \"--\", \"./a.sh\"]\nCMD [\"x\"]"
        )),
        3
    );
}

#[test]
fn an_executable_script_is_run_as_it_is() {
    let files: Files<'_> = &[
        (
            "s/Dockerfile",
            "FROM python:3\nWORKDIR /app\nCOPY . .\nCMD [\"/app/start.sh\"]\n",
        ),
        ("s/start.sh", "#!/bin/sh\n"),
        ("s/main.py", ""),
    ];
    let (dir, _) = project("", files);
    let script = dir.path().join("s/start.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    let loaded = Topology::load(dir.path(), &LoadOptions::default());
    let topology = loaded.topology.unwrap();
    let image = &topology.images()["api"];
    assert_eq!(image.run.to_string(), "./start.sh");
}

/// What was looked for and isn't there would change what is inferred.
#[test]
fn files_that_tell_are_inputs_and_sources_are_not() {
    let files: Files<'_> = &[
        ("s/requirements.txt", "flask\n"),
        ("s/main.py", "app = Flask()\n"),
    ];
    let (dir, loaded) = project("", files);
    let root = dir.path().canonicalize().unwrap();
    let has = |name: &str| loaded.inputs.contains(&root.join(name));
    for name in [
        "s/Dockerfile",
        "s/requirements.txt",
        "s/uv.lock",
        "s/package.json",
        "s/go.mod",
    ] {
        assert!(has(name), "{name}");
    }
    for name in ["s/main.py", "s/app.py", "s/manage.py", "s"] {
        assert!(!has(name), "{name}");
    }
}

#[rstest]
#[case::another_port(
    "EXPOSE 8080",
    DEPLOYMENT,
    Some(
        "s/Dockerfile:2:8: warning[image::port]: the image \"api\" exposes the port 8080, and none of its containers has it\n  expected: the containers' port, such as 5000\n  the container's port: k8s/api.yaml:8:73"
    )
)]
#[case::the_same("EXPOSE 5000", DEPLOYMENT, None)]
#[case::one_of_them("EXPOSE 9229 5000/tcp", DEPLOYMENT, None)]
#[case::udp("EXPOSE 53/udp", DEPLOYMENT, None)]
#[case::none("", DEPLOYMENT, None)]
fn ports(#[case] expose: &str, #[case] manifest: &str, #[case] want: Option<&str>) {
    let dockerfile = format!("FROM python:3\n{expose}\n");
    let (_dir, loaded) = project(
        "run = \"x\"",
        &[("s/Dockerfile", &dockerfile), ("k8s/api.yaml", manifest)],
    );
    let text = messages(&loaded);
    assert!(loaded.topology.is_some(), "{text}");
    assert_eq!(text, want.unwrap_or(""));
}

#[test]
fn a_port_that_the_manifest_chooses_or_does_not_name_is_no_mistake() {
    let dockerfile = ("s/Dockerfile", "FROM python:3\nEXPOSE 8080\n");
    for manifest in [
        DEPLOYMENT.replace("ports:", "env: [{name: PORT, value: '5000'}], ports:"),
        DEPLOYMENT.replace(", ports: [{containerPort: 5000}]", ""),
    ] {
        let (_dir, loaded) = project("run = \"x\"", &[dockerfile, ("k8s/api.yaml", &manifest)]);
        assert_eq!(messages(&loaded), "");
    }
}
