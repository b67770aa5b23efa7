//! The program itself: its defaults, its complaints, and its end.

use telemetry::testing::process::WriteProgram;

const PROGRAM: WriteProgram = WriteProgram {
    path: env!("CARGO_BIN_EXE_api1"),
    name: "api1",
    port: 5000,
};

#[test]
fn a_bad_environment_is_told_whole() {
    PROGRAM.tells_a_bad_environment_whole();
}

#[tokio::test]
async fn it_stamps_rows_with_its_name_and_ends_on_sigterm() {
    PROGRAM.stamps_rows_and_ends_on_sigterm().await;
}
