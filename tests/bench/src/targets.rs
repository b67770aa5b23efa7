//! The same system on each target: up, a save, down; and what `--target kind` costs over
//! doing it by hand with kind, docker and kubectl.
//!
//! Everything is said cold with cold and warm with warm. Images are in the engine's cache
//! throughout: what is measured is neither a registry nor a compiler.

mod app;
mod hand;

use crate::Failure;
use crate::figures::{Report, Series};
use app::Containers;
use hand::Hand;
use std::time::Duration;

/// A target, in the words of `devenv up`.
struct Target {
    what: &'static str,
    words: &'static [&'static str],
}

const TARGETS: [Target; 3] = [
    Target {
        what: "local, processes",
        words: &[],
    },
    Target {
        what: "local, containers",
        words: &["--runtime", "docker"],
    },
    Target {
        what: "kind",
        words: &["--target", "kind", "--ingress", "devenv"],
    },
];

/// A report for each thing that is done, told as they come.
pub fn run(runs: usize, tell: &mut dyn FnMut(Report)) -> Result<(), Failure> {
    let tools = app::Tools::find()?;
    let project = Containers::new(&tools, "bench-targets")?;
    let second = Containers::new(&tools, "bench-second")?;
    let hand = Hand::new(&tools, &project)?;
    // Whoever builds first fills the cache for all.
    hand.build()?;
    let mut rows = Rows::default();
    for round in 0..runs {
        for target in &TARGETS {
            rows.round(target, &project, &second, round == 0)?;
        }
        hand.remove()?;
        rows.by_hand_cold.push(hand.up()?);
        rows.by_hand_rebuild.push(hand.rebuild()?);
        hand.remove()?;
    }
    rows.tell(tell);
    Ok(())
}

/// What was measured, by target where it is of one.
#[derive(Default)]
struct Rows {
    cold: [Vec<Duration>; 3],
    warm: [Vec<Duration>; 3],
    second: [Vec<Duration>; 3],
    down: [Vec<Duration>; 3],
    /// Python, Node.js, and a program that a build here has made.
    saves: [[Vec<Duration>; 3]; 3],
    rebuild: [Vec<Duration>; 3],
    by_hand_cold: Vec<Duration>,
    by_hand_rebuild: Vec<Duration>,
}

impl Rows {
    fn round(
        &mut self,
        target: &Target,
        project: &Containers,
        second: &Containers,
        first: bool,
    ) -> Result<(), Failure> {
        let at = TARGETS
            .iter()
            .position(|t| t.what == target.what)
            .unwrap_or(0);
        project.down();
        let cold = project.up(target.words)?;
        self.cold[at].push(cold);
        if first {
            self.second[at].push(second.up(target.words)?);
            second.down();
        }
        for (language, times) in self.saves[at].iter_mut().enumerate() {
            // The first of each learns what the node has.
            project.save(language)?;
            times.push(project.save(language)?);
        }
        self.rebuild[at].push(project.rebuild()?);
        self.down[at].push(project.stop()?);
        self.warm[at].push(project.up(target.words)?);
        project.down();
        Ok(())
    }

    fn tell(self, tell: &mut dyn FnMut(Report)) {
        let kind = TARGETS.len() - 1;
        let series = |what: &str, times: &[Vec<Duration>; 3]| -> Vec<Series> {
            let rows = TARGETS.iter().zip(times);
            rows.map(|(target, times)| Series::of_times(&format!("{what}: {}", target.what), times))
                .collect()
        };
        let mut cold = Report::compared(
            "targets: up from nothing",
            Series::of_times("devenv up --target kind", &self.cold[kind]),
            Series::of_times(
                "by hand: kind, docker, kubectl, with the same controller",
                &self.by_hand_cold,
            ),
            "at most 1.05 times",
        );
        cold.series
            .extend(series("up, cold", &self.cold).into_iter().take(kind));
        tell(cold);
        let list = |bench, series, goal| Report {
            bench,
            series,
            ratio_min: None,
            ratio_median: None,
            goal,
        };
        tell(list(
            "targets: up, warm (its data and cluster are there)",
            series("up, warm", &self.warm),
            "none",
        ));
        tell(list(
            "targets: up of a second project, cold",
            series("second", &self.second),
            "none",
        ));
        tell(list("targets: down", series("down", &self.down), "none"));
        for (language, what) in app::LANGUAGES.iter().enumerate() {
            let rows = TARGETS.iter().zip(&self.saves);
            let rows = rows.map(|(target, times)| {
                let what = format!("save to first answer, {what}: {}", target.what);
                Series::of_times(&what, &times[language])
            });
            tell(list(
                "targets: a save, laid over the image",
                rows.collect(),
                "under 2.5 s on kind",
            ));
        }
        let mut rebuild = Report::compared(
            "targets: an image built and rolled out",
            Series::of_times("devenv reload on kind", &self.rebuild[kind]),
            Series::of_times(
                "docker build, kind load, kubectl set image, rollout",
                &self.by_hand_rebuild,
            ),
            "at most 1.05 times",
        );
        rebuild
            .series
            .extend(series("reload", &self.rebuild).into_iter().take(kind));
        tell(rebuild);
    }
}
