//! The host processes that a role runs for the supervisor.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{
    reaper::Ended,
    wire::{Channel, HostExited, SignalHost},
};

/// Those that are running.
#[derive(Default)]
pub(crate) struct HostChildren(Vec<Entry>);

struct Entry {
    pid: Pid,
    /// `None` once the supervisor has dropped its handle.
    channel: Option<Channel>,
}

impl HostChildren {
    /// One more, with the role's end of its channel.
    pub fn add(&mut self, pid: Pid, channel: Channel) {
        let channel = Some(channel);
        self.0.push(Entry { pid, channel });
    }

    /// What to wait for; [`control`](Self::control) what is readable.
    pub fn watched(&self) -> Vec<(Pid, &Channel)> {
        self.0
            .iter()
            .filter_map(|child| Some((child.pid, child.channel.as_ref()?)))
            .collect()
    }

    /// A child's channel has something: a signal to pass on, or a hang-up.
    pub fn control(&mut self, pid: Pid) {
        let Some(child) = self.0.iter_mut().find(|child| child.pid == pid) else {
            return; // it ended in the same round
        };
        let Some(channel) = &child.channel else {
            return;
        };
        // Not reaped yet, so the group's id still is this child's.
        match channel.try_recv::<SignalHost>() {
            Ok(Some((SignalHost(signal), _))) => {
                if let Ok(signal) = Signal::try_from(signal) {
                    let _ = killpg(pid, signal);
                }
            }
            Ok(None) => {
                child.channel = None;
                let _ = killpg(pid, Signal::SIGKILL);
            }
            Err(_) => {}
        }
    }

    /// Reaps a process; one of these is told to the supervisor, with the rest
    /// of its group killed before.
    pub fn ended(&mut self, ended: Ended) {
        let Some(index) = self.0.iter().position(|child| child.pid == ended.pid) else {
            ended.reap();
            return;
        };
        ended.kill_group();
        let exit = ended.reap();
        if let Some(channel) = self.0.swap_remove(index).channel {
            // The supervisor may have let go in the meantime.
            let _ = channel.send(&HostExited(exit), &[]);
        }
    }
}
