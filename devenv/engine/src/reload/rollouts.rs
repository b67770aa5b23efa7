//! The rollouts under way: a workload has one at a time, and a newer one takes its
//! place.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::mpsc, task::AbortHandle};
use tokio_util::task::TaskTracker;

use super::{
    record::{Outcome, Reload, Save},
    rollout::{self, Progress},
    told,
};
use crate::{
    event::{Event, Report},
    live::{Live, Rolling},
    workload::NotReady,
};

#[derive(Debug)]
pub(crate) struct Rollouts {
    under_way: Mutex<Table>,
    tracker: TaskTracker,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    by_workload: HashMap<String, UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    reload: Reload,
    task: AbortHandle,
}

/// A rollout as its own task knows it.
struct Mine {
    number: u64,
    key: String,
    rolling: Rolling,
    save: Save,
    reload: Reload,
}

impl Rollouts {
    /// None so far; `tracker` knows when the last of their tasks has ended.
    pub fn new(tracker: &TaskTracker) -> Self {
        Self {
            under_way: Mutex::default(),
            tracker: tracker.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows `rolling` until the new version serves, and records what came of it in
    /// `reload`, which has come as far as the build.
    pub fn follow(
        self: &Arc<Self>,
        live: &Arc<Live>,
        rolling: Rolling,
        save: Save,
        mut reload: Reload,
    ) {
        let object = &rolling.object;
        let workload = format!("{} {}", object.kind(), object.name());
        // Before the task, which may be done at once.
        live.bus.emit(Event::Rolling {
            workload: workload.clone(),
        });
        reload.workload = Some(workload);
        let key = object.to_string();
        // Locked until the task is in it: it may be done at once.
        let mut table = self.lock();
        table.next += 1;
        let mine = Mine {
            number: table.next,
            key: key.clone(),
            rolling,
            save,
            reload: reload.clone(),
        };
        let number = mine.number;
        let run = self.clone().run(live.clone(), mine);
        let task = self.tracker.spawn(run).abort_handle();
        let newest = UnderWay {
            number,
            reload,
            task,
        };
        let older = table.by_workload.insert(key, newest);
        drop(table);
        if let Some(older) = older {
            older.task.abort();
            live.journal.record(Reload {
                outcome: Outcome::Superseded,
                ..older.reload
            });
        }
    }

    /// Follows nothing any more.
    pub fn stop(&self) {
        for (_, under_way) in self.lock().by_workload.drain() {
            under_way.task.abort();
        }
    }

    /// Takes it out, if it is still the newest of its workload.
    fn finish(&self, mine: &Mine) -> bool {
        let mut table = self.lock();
        let newest = table.by_workload.get(&mine.key).map(|u| u.number);
        newest == Some(mine.number) && table.by_workload.remove(&mine.key).is_some()
    }

    async fn run(self: Arc<Self>, live: Arc<Live>, mine: Mine) {
        let (progress_tx, mut progress_rx) = mpsc::unbounded_channel();
        let following = async {
            // The receiver lives as long as this does.
            let send = |p| drop(progress_tx.send(p));
            rollout::follow(&live, &mine.rolling, mine.save, mine.reload.ms, send).await;
            drop(progress_tx);
        };
        let telling = async {
            while let Some(progress) = progress_rx.recv().await {
                self.tell(&live, &mine, progress).await;
            }
        };
        tokio::join!(following, telling);
    }

    async fn tell(&self, live: &Arc<Live>, mine: &Mine, progress: Progress) {
        let object = std::slice::from_ref(&mine.rolling.object);
        match progress {
            Progress::Done(budget) => {
                // From then on it can't be superseded, so this task is not aborted.
                if !self.finish(mine) {
                    return;
                }
                live.journal.record(Reload {
                    ms: budget,
                    ..mine.reload.clone()
                });
                told::mended(live, &mine.key, object).await;
            }
            Progress::Stuck(why, budget) => {
                let report = report(&why);
                if told::trouble(live, &mine.key, "NotReady", &report, object).await {
                    live.journal.record(Reload {
                        outcome: Outcome::NotReady,
                        ms: budget,
                        error: Some(report),
                        ..mine.reload.clone()
                    });
                }
            }
        }
    }
}

fn report(why: &NotReady) -> Report {
    Report {
        message: format!("{} ({}): {}", why.workload, why.origin, why.reason),
        causes: Vec::new(),
        help: Some("the version before it serves; the next good save takes its place".to_owned()),
        output: (!why.log.is_empty()).then(|| why.log.join("\n")),
        exit_code: 1,
    }
}
