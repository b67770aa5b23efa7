//! The contract of the reference application, clause by clause, the same for each
//! implementation: the Rust services, and those of the seed profile in Python and
//! Node.js.
//!
//! A test binary with its own `main`: it has one database and one process of each
//! program for all clauses, and ends them. Clauses run one after the other.
//!
//! `cargo xtask test contract` runs it; by hand, after `cargo build --workspace`:
//! `cargo test --workspace --test contract -- python::`.

mod across;
mod body;
mod fields;
mod idempotency;
mod live;
mod outage;
mod pages;
mod process;
mod seed;

use devenv_tests::contract::program::{Implementation, Side, Unready};
use devenv_tests::contract::socket::Transport;
use devenv_tests::contract::stage::Stage;
use devenv_tests::{is_ci, skip};
use libtest_mimic::{Arguments, Failed, Trial};
use sqlx::MySqlConnection;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Runtime;

use Implementation::{Node, Python, Rust};

/// The future of one clause.
type Checking<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// What an implementation must do: its name, and how it is checked.
type Clause = (
    &'static str,
    for<'a> fn(&'a mut Stage, Implementation) -> Checking<'a>,
);

/// The same for what pages are told, over each transport.
type LiveClause = (
    &'static str,
    for<'a> fn(&'a mut Stage, Implementation, Transport) -> Checking<'a>,
);

/// A table of clauses under the names of their functions.
macro_rules! clauses {
    ($($check:ident),+ $(,)?) => {
        &[$((stringify!($check), |stage, implementation| Box::pin($check(stage, implementation)))),+]
    };
}
macro_rules! live_clauses {
    ($($check:ident),+ $(,)?) => {
        &[$((stringify!($check), |stage, implementation, transport| {
            Box::pin($check(stage, implementation, transport))
        })),+]
    };
}
use {clauses, live_clauses};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the database.
    arguments.test_threads = Some(1);
    let run = Arc::new(Run {
        runtime: Runtime::new().expect("a runtime"),
        stage: Mutex::new(None),
    });
    let conclusion = libtest_mimic::run(&arguments, trials(&run));
    // Ends the programs, then the database.
    let stage = run
        .stage
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let _within = run.runtime.enter();
    drop(stage);
    conclusion.exit_code()
}

fn trials(run: &Arc<Run>) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut add = |name: String, needs: &[(Implementation, Side)], clause: Check| {
        let (run, needs) = (run.clone(), needs.to_vec());
        trials.push(Trial::test(format!("contract::{name}"), move || {
            run.check(&needs, clause)
        }));
    };
    for implementation in [Rust, Python, Node] {
        for (module, clauses) in [
            ("fields", fields::CLAUSES),
            ("body", body::CLAUSES),
            ("pages", pages::CLAUSES),
            ("idempotency", idempotency::CLAUSES),
            ("process", process::CLAUSES),
            ("outage", outage::CLAUSES),
        ] {
            for (name, clause) in clauses {
                let name = format!("{implementation}::{module}::{name}");
                let clause: Check = Box::new(move |stage| clause(stage, implementation));
                add(name, &[(implementation, Side::Write)], clause);
            }
        }
    }
    for implementation in [Rust, Node] {
        for (name, clause) in live::CLAUSES {
            let name = format!("{implementation}::live::{name}");
            let clause: Check = Box::new(move |stage| clause(stage, implementation));
            add(name, &[(implementation, Side::Read)], clause);
        }
        for transport in [Transport::WebSocket, Transport::Polling] {
            for (name, clause) in live::TOLD {
                let name = format!("{implementation}::live::{transport}::{name}");
                let clause: Check = Box::new(move |stage| clause(stage, implementation, transport));
                add(name, &[(implementation, Side::Read)], clause);
            }
        }
    }
    for (first, second) in [(Rust, Python), (Python, Node), (Node, Rust)] {
        for (name, clause) in across::PAIRS {
            let name = format!("across::{first}_and_{second}::{name}");
            let needs = [(first, Side::Write), (second, Side::Write)];
            add(
                name,
                &needs,
                Box::new(move |stage| clause(stage, first, second)),
            );
        }
    }
    let all = [Rust, Python, Node].map(|one| (one, Side::Write));
    for (name, clause) in across::ALL {
        add(format!("across::{name}"), &all, Box::new(clause));
    }
    let both = [Rust, Node].map(|one| (one, Side::Read));
    for (name, clause) in across::READERS {
        add(format!("across::{name}"), &both, Box::new(clause));
    }
    for (name, check) in seed::CHECKS {
        let run = run.clone();
        trials.push(Trial::test(
            format!("contract::seed::{name}"),
            move || match run.runtime.block_on(check()) {
                Ok(()) => Ok(()),
                Err(unready) => unready_is(&unready),
            },
        ));
    }
    trials
}

/// What all trials share.
struct Run {
    runtime: Runtime,
    stage: Mutex<Option<Stage>>,
}

type Check = Box<dyn for<'a> FnOnce(&'a mut Stage) -> Checking<'a> + Send>;

impl Run {
    /// Runs one clause on a cleared stage, when its programs can be started.
    fn check(&self, needs: &[(Implementation, Side)], check: Check) -> Result<(), Failed> {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        self.runtime.block_on(async {
            if stage.is_none() {
                *stage = Stage::open().await;
            }
            let Some(stage) = stage.as_mut() else {
                skip("there is no mariadbd here");
                return Ok(());
            };
            stage.clear().await;
            for (implementation, side) in needs {
                if let Err(unready) = stage.service(*implementation, *side).await {
                    return unready_is(&unready);
                }
            }
            check(stage).await;
            Ok(())
        })
    }
}

/// A tool that this machine has not is no failure of a program, except where all
/// tools must be.
fn unready_is(unready: &Unready) -> Result<(), Failed> {
    match unready {
        Unready::Missing(tool) if !is_ci() => {
            skip(&format!("there is no {tool} here"));
            Ok(())
        }
        Unready::Missing(tool) => Err(format!("there is no {tool} here").into()),
        Unready::Failed(said) => Err(said.into()),
    }
}

/// A good record that can be told from others by its `total_procesos`.
fn record(mark: u32) -> serde_json::Value {
    let mut record = devenv_tests::record::record(4000.25);
    record["total_procesos"] = mark.into();
    record
}

/// Writes `n` rows of `api` past the programs.
async fn write_rows(connection: &mut MySqlConnection, api: &str, n: usize) {
    write_rows_of(connection, api, n, 0).await;
}

/// The same, as if they had been written ten minutes ago.
async fn write_old_rows(connection: &mut MySqlConnection, api: &str, n: usize) {
    write_rows_of(connection, api, n, 10).await;
}

async fn write_rows_of(connection: &mut MySqlConnection, api: &str, n: usize, minutes_ago: i64) {
    for _ in 0..n {
        sqlx::query(
            "INSERT INTO records (total_ram, ram_libre, uso_ram, porcentaje_ram, \
             porcentaje_cpu_uso, porcentaje_cpu_libre, procesos_corriendo, total_procesos, \
             procesos_durmiendo, procesos_zombie, procesos_parados, hora, api, created_at) \
             VALUES (8000, 4000, 4000, 50, 12.5, 87.5, 1, 100, 98, 1, 0, '2025-03-01 12:30:59', \
             ?, UTC_TIMESTAMP(6) - INTERVAL ? MINUTE)",
        )
        .bind(api)
        .bind(minutes_ago)
        .execute(&mut *connection)
        .await
        .expect("the database is up");
    }
}
