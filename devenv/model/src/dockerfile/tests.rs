use super::*;
use rstest::rstest;

#[track_caller]
fn image(text: &str) -> Image {
    read(0, text).unwrap_or_else(|e| panic!("{e:?}"))
}

fn exec(words: &[&str]) -> Program {
    Program::Exec(words.iter().map(|w| (*w).to_owned()).collect())
}

fn shell(line: &str) -> Program {
    Program::Shell {
        shell: vec!["/bin/sh".into(), "-c".into()],
        line: line.into(),
    }
}

#[rstest]
#[case::exec("CMD [\"python\", \"main.py\"]", exec(&["python", "main.py"]))]
#[case::escapes("CMD [\"a\\\"b\", \"\\u0041\"]", exec(&["a\"b", "A"]))]
#[case::shell(
    "CMD python main.py --port $PORT",
    shell("python main.py --port $PORT")
)]
#[case::continued("CMD python \\\n  # a comment\n  main.py", shell("python main.py"))]
#[case::single_quotes_are_no_json("CMD ['a']", shell("['a']"))]
#[case::unterminated_list("CMD [\"a\", \"b\"", shell("[\"a\", \"b\""))]
#[case::the_last_one_counts("CMD a\nCMD b", shell("b"))]
#[case::lower_case("cmd a", shell("a"))]
fn cmd(#[case] instruction: &str, #[case] want: Program) {
    let image = image(&format!("FROM x\n{instruction}\n"));
    assert_eq!(image.cmd.unwrap().value, want);
}

#[rstest]
#[case::taken_back("FROM x AS a\nCMD a\nFROM a\nCMD []", None, None)]
#[case::inherited("FROM x AS a\nCMD a\nFROM A\nENV B=1", None, Some("a"))]
#[case::another_base("FROM x AS a\nCMD a\nFROM y", None, None)]
#[case::the_bases_arguments_go("FROM x AS a\nCMD a\nFROM a\nENTRYPOINT e", Some("e"), None)]
#[case::own_stay("FROM x\nCMD a\nENTRYPOINT e", Some("e"), Some("a"))]
#[case::own_of_a_later_stage("FROM x AS a\nENTRYPOINT e\nFROM a\nCMD a", Some("e"), Some("a"))]
fn entrypoint_and_cmd_over_stages(
    #[case] text: &str,
    #[case] entrypoint: Option<&str>,
    #[case] cmd: Option<&str>,
) {
    let image = image(text);
    let line = |said: Option<Said<Program>>| {
        said.map(|s| match s.value {
            Program::Shell { line, .. } => line,
            Program::Exec(argv) => argv.join(" "),
        })
    };
    assert_eq!(line(image.entrypoint).as_deref(), entrypoint);
    assert_eq!(line(image.cmd).as_deref(), cmd);
}

#[test]
fn another_shell() {
    let image = image("FROM x\nSHELL [\"/bin/bash\", \"-ec\"]\nCMD a\n");
    let Some(Said {
        value: Program::Shell { shell, .. },
        ..
    }) = image.cmd
    else {
        panic!("no CMD");
    };
    assert_eq!(shell, ["/bin/bash", "-ec"]);
}

#[rstest]
#[case("WORKDIR /a\nWORKDIR b\nWORKDIR ../c", "/a/c")]
#[case("WORKDIR a", "/a")]
#[case("ENV D=/srv\nWORKDIR $D/app/", "/srv/app")]
#[case("ARG D=/arg\nWORKDIR ${D}", "/arg")]
#[case("WORKDIR /../..", "/")]
fn workdir(#[case] text: &str, #[case] want: &str) {
    let image = image(&format!("FROM x\n{text}\n"));
    assert_eq!(image.workdir.unwrap().value, want);
}

#[rstest]
#[case::both_forms("ENV A=1 B=\"x y\"\nENV C the rest", &[("A", "1"), ("B", "x y"), ("C", "the rest")])]
#[case::the_line_before("ENV A=1\nENV A=2 B=$A", &[("A", "2"), ("B", "1")])]
#[case::arguments("ARG V=3\nENV A=$V", &[("A", "3")])]
#[case::global_arguments_are_asked_for("ENV A=$G\nARG G\nENV B=$G", &[("A", ""), ("B", "g")])]
#[case::env_over_arg("ARG A=arg\nENV A=env\nENV B=$A", &[("A", "env"), ("B", "env")])]
#[case::over_lines("ENV A=1 \\\n # why\n B=2", &[("A", "1"), ("B", "2")])]
fn env(#[case] text: &str, #[case] want: &[(&str, &str)]) {
    let image = image(&format!("ARG G=g\nFROM x\n{text}\n"));
    let env: Vec<(&str, &str)> = image
        .env
        .iter()
        .map(|(name, said)| (name.as_str(), said.value.as_str()))
        .collect();
    assert_eq!(env, want);
}

#[test]
fn a_chain_of_stages_hands_down_all_but_arguments() {
    let image = image(
        "ARG V=3.12\n\
         FROM --platform=$BUILDPLATFORM python:${V}-slim AS base\n\
         ARG SECRET=s\n\
         ENV A=1\n\
         WORKDIR /srv\n\
         EXPOSE 80\n\
         FROM golang:1 AS tool\n\
         RUN go build\n\
         FROM base AS middle\n\
         FROM middle\n\
         ENV B=$A C=$SECRET\n\
         COPY --from=tool /t ./\n\
         COPY [\"a\", \"b c\", \"./d/\"]\n\
         EXPOSE 8000-8001/tcp 53/udp $NONE 9/TCP\n",
    );
    assert_eq!(image.base, "python:3.12-slim");
    assert_eq!(image.other_bases, ["golang:1"]);
    let env: Vec<_> = image
        .env
        .iter()
        .map(|(n, v)| format!("{n}={}", v.value))
        .collect();
    assert_eq!(env, ["A=1", "B=1", "C="]);
    let exposed: Vec<u16> = image.exposed.iter().map(|p| p.value).collect();
    assert_eq!(exposed, [80, 8000, 8001, 9]);
    assert_eq!(image.runs[0].value, "go build");
    let copies: Vec<&Copy> = image.copies.iter().map(|c| &c.value).collect();
    assert_eq!(copies[0].from.as_deref(), Some("tool"));
    assert_eq!((copies[0].dest.as_str(), copies[0].into), ("/srv", true));
    assert_eq!(copies[1].sources, ["a", "b c"]);
    assert_eq!(copies[1].dest, "/srv/d");
}

#[test]
fn copies_of_other_stages_are_told_apart() {
    let image = image("FROM x AS a\nCOPY go.mod .\nFROM y\nCOPY --from=a /b /b\n");
    assert_eq!(image.other_sources, ["go.mod"]);
    assert_eq!(image.copies.len(), 1);
}

#[test]
fn positions_are_those_of_the_instructions() {
    let text = "FROM x\n\nENV A=1\nCMD [\"a\"]\nEXPOSE 80 81\n";
    let image = image(text);
    let at = |span: Span| &text[span.start as usize..span.end as usize];
    assert_eq!(at(image.env["A"].span), "ENV A=1");
    assert_eq!(at(image.cmd.unwrap().span), "CMD [\"a\"]");
    assert_eq!(at(image.exposed[1].span), "81");
}

#[test]
fn here_documents_and_cache_mounts_of_run() {
    let image = image(
        "FROM x\nRUN --mount=type=cache,target=/c pip install \\\n  -r a.txt\nRUN <<E\nnpm ci\nE\nCOPY <<F /f\nCMD no\nF\n",
    );
    assert_eq!(image.runs[0].value, "pip install -r a.txt");
    assert!(image.runs[1].value.contains("npm ci"));
    assert_eq!(image.cmd, None);
    assert!(image.copies[0].value.sources.is_empty());
}

#[test]
fn another_escape_character() {
    let image = image("# escape=`\nFROM x\nENV A=a`\n b\nCMD a `\n b\n");
    assert_eq!(image.cmd.unwrap().value, shell("a b"));
}

#[rstest]
#[case("", 1, "FROM")]
#[case("CMD a", 1, "FROM")]
#[case("FROM x\nCMDS a", 2, "unknown instruction 'CMDS'")]
#[case("FROM x\n\nRUN <<E\nnever\n", 5, "here-document")]
#[case("FROM x AS a\nFROM y AS a", 2, "duplicate stage name")]
fn malformed(#[case] text: &str, #[case] line: usize, #[case] want: &str) {
    let e = read(0, text).unwrap_err();
    assert_eq!(e.line, line, "{e:?}");
    assert!(e.message.contains(want), "{e:?}");
}

/// Each takes far longer, or far more memory, where some step is quadratic.
#[test]
fn large_files_are_read_in_time() {
    let many = |line: &dyn Fn(usize) -> String| (0..20_000).map(line).collect::<String>();
    let doubled = image(&format!(
        "FROM x\nENV A=xx\n{}",
        "ENV A=$A$A\n".repeat(100_000)
    ));
    assert!(doubled.env["A"].value.len() <= 4096);
    let text = format!("FROM x AS s\n{}", many(&|i| format!("ENV A{i}=1\n")));
    assert_eq!(image(&text).env.len(), 20_000);
    let stages = many(&|i| format!("FROM s AS s{i}\n"));
    assert_eq!(image(&(text + &stages)).env.len(), 20_000);
    let copies = many(&|i| format!("COPY a{i} b\n"));
    assert_eq!(
        image(&format!("FROM x AS a\n{copies}FROM y\n{copies}"))
            .copies
            .len(),
        20_000
    );
    image(&format!("FROM x\nENV A={}\n", "${".repeat(1_000_000)));
}

#[test]
fn a_long_word_is_cut() {
    let e = read(0, &format!("FROM x\n{} a", "A".repeat(1 << 20))).unwrap_err();
    assert!(e.message.len() < 200);
}
