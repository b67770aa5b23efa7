//! The main job and what may go wrong with it, through the built `devenv`.
//!
//! `cargo xtask test` runs these one at a time; by hand, after
//! `cargo build --workspace`:
//! `cargo test --workspace --test blackbox -- --test-threads=1`.

mod blackbox {
    mod browser;
    mod cli;
    mod compare;
    mod course;
    mod crash;
    mod debug;
    mod docker;
    mod e2e;
    mod fresh;
    mod kind;
    mod kind_nginx;
    mod kind_nodes;
    mod kubectl;
    mod main_job;
    mod reload;
    mod sabotage;
    mod shared;
    mod socketio;
    mod unprivileged;
    mod watch;
}
