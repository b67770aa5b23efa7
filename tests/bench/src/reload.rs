//! From a save to the first answer of the new version: through devenv, by hand, and with
//! the tools that people use for it. And what watching costs while nobody saves.

mod app;
mod peer;
mod poll;
mod rest;
mod stages;

use crate::Failure;
use crate::figures::{Report, Series};
use app::{App, Edited, Workshop};
use peer::Peer;
use poll::Answers;
use std::time::Duration;

/// For a watcher that is up to have its watches; none of the tools announces it.
const SETTLE: Duration = Duration::from_secs(1);

/// One report for each language, and one of a tree at rest, told as they come.
pub fn run(runs: usize, tell: &mut dyn FnMut(Report)) -> Result<(), Failure> {
    let tools = peer::Tools::install()?;
    let workshop = Workshop::new()?;
    for app in App::ALL {
        tell(compare(&workshop, &tools, app, runs)?);
    }
    // Its services would only be in the way.
    drop(workshop);
    tell(rest::run()?);
    Ok(())
}

/// All do the same edit in turn, so that they share the machine's moods.
fn compare(
    workshop: &Workshop,
    tools: &peer::Tools,
    app: App,
    runs: usize,
) -> Result<Report, Failure> {
    let peers = tools.of(app);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let mut theirs: Vec<Vec<Duration>> = vec![Vec::new(); peers.len()];
    let through = Answers::through(&workshop.ingress, app);
    let mut here = Edited::new(workshop.devenv_folder(), app);
    let mut beside = Edited::new(workshop.bare_folder(), app);
    let mut by_hand = app.start(workshop, &beside)?;
    // The first of each warms caches and doesn't count.
    for round in 0..=runs {
        let counts = round > 0;
        let (saved, version) = here.save()?;
        let took = through.wait(saved, &version)?;
        workshop.until_rolled(&here)?;
        ours.extend(counts.then_some(took));

        let (saved, version) = beside.save()?;
        by_hand.kill();
        app.build(workshop)?;
        by_hand = app.start(workshop, &beside)?;
        let took = by_hand.answers().wait(saved, &version)?;
        bare.extend(counts.then_some(took));

        by_hand.kill();
        for (peer, times) in peers.iter().zip(&mut theirs) {
            match with_peer(workshop, *peer, app, &mut beside) {
                Ok(took) => times.extend(counts.then_some(took)),
                // Said, and seen in the number of samples; it is not what is tested.
                Err(error) => eprintln!("{} of {app}: {error}", peer.name()),
            }
        }
        app.build(workshop)?;
        by_hand = app.start(workshop, &beside)?;
        by_hand.answers().wait_now(&beside.version())?;
    }
    let mut report = Report::compared(
        app.bench(),
        Series::of_times("save to first answer through devenv", &ours),
        Series::of_times("kill, build if need be, start by hand", &bare),
        app.goal(),
    );
    for (peer, times) in peers.iter().zip(&theirs) {
        report.series.push(Series::of_times(peer.name(), times));
    }
    report.series.extend(stages::of(workshop, app, runs)?);
    Ok(report)
}

fn with_peer(
    workshop: &Workshop,
    peer: Peer<'_>,
    app: App,
    edited: &mut Edited,
) -> Result<Duration, Failure> {
    let running = peer.start(workshop, app, edited)?;
    running.answers().wait_now(&edited.version())?;
    std::thread::sleep(SETTLE);
    let (saved, version) = edited.save()?;
    running.answers().wait(saved, &version)
}
