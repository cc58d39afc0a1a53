//! Starting a worker.

use std::sync::Arc;
use std::thread;

use super::lane::{Process, Status};
use super::{Shared, StartError};
use crate::control::{HandshakeError, Server, Welcome};
use crate::sys::event::EventFd;
use crate::sys::process::{self, PidFd, WatchPipe};
use crate::worker::{MARK, Mark};

/// A handshake that did not end well.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) lane: usize,
    pub(super) life: u32,
    pub(super) why: HandshakeError,
}

/// The first grant of a worker: small pages, so that nothing is collapsed before the first result.
const FIRST_GRANT: u64 = 64 * 1024;

/// A worker that was started, and the handshake that it will begin.
#[derive(Debug)]
pub(super) struct Started {
    lane: usize,
    life: u32,
    server: Server,
    welcome: Welcome,
}

impl Shared {
    /// Starts the process of a lane. Only on the monitor thread: the kernel ends a worker when the
    /// *thread* that started it ends.
    pub(super) fn spawn_worker(
        &self,
        index: usize,
        watch: &WatchPipe,
    ) -> Result<Started, StartError> {
        let system = StartError::System;
        let server = Server::new().map_err(StartError::Worker)?;
        crate::sync::point!("spawn.served");
        let name = server.name().to_owned();
        let bell = EventFd::new().map_err(system)?;
        let welcome = {
            let core = self.lock();
            let lane = &core.lanes[index];
            Welcome {
                worker: index as u32,
                region: lane.region,
                position: lane.poster.tail(),
                grants: lane.poster.granted(),
                guard: self.settings.guard,
                memory_limit: self.settings.memory_limit,
                on_start: self.settings.on_start,
                label: self.settings.label.clone(),
                reservation: self.arena.reservation(),
            }
        };
        let mut fds = vec![std::os::fd::AsFd::as_fd(&watch.read), bell.as_fd()];
        fds.extend(self.arena.descriptors());
        let first_fd = process::first_target_fd(&fds);
        let mark = Mark {
            parent: std::process::id() as i32,
            first_fd,
            fds: fds.len(),
            server: name.clone(),
        };
        let pid =
            process::spawn_self(&[(MARK, mark.to_string())], &fds, first_fd).map_err(system)?;
        // Without a pidfd it cannot be watched; it ends when it finds nobody to say hello to.
        crate::sync::point!("spawn.started");
        let pidfd = PidFd::open(pid).map_err(system)?;
        crate::sync::point!("spawn.watched");
        let mut core = self.lock();
        let lane = &mut core.lanes[index];
        lane.life = lane.life.wrapping_add(1);
        lane.status = Status::Starting;
        lane.process = Some(Process {
            pidfd,
            bell,
            server: name,
        });
        Ok(Started {
            lane: index,
            life: lane.life,
            server,
            welcome,
        })
    }

    /// Answers a worker that was started, on a thread of its own, and gives it memory meanwhile.
    pub(super) fn greet(self: &Arc<Self>, started: Started) {
        let Started {
            lane,
            life,
            server,
            welcome,
        } = started;
        crate::sync::point!("spawn.recorded");
        let shared = Arc::clone(self);
        let build_id = crate::sys::image::image().build_id;
        let answer = move || match server.answer(build_id.as_bytes(), welcome) {
            Ok(()) => shared.welcome(lane, life),
            Err(why) => shared.refused(Refusal { lane, life, why }),
        };
        let spawned = thread::Builder::new()
            .name("arenite-hello".into())
            .stack_size(256 * 1024)
            .spawn(answer);
        if let Err(error) = spawned {
            let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN));
            let error = crate::sys::Error::new("clone", errno, "a thread for a worker's start");
            let why = HandshakeError::Channel(error.to_string());
            self.refused(Refusal { lane, life, why });
        }
        let region = self.lock().lanes[lane].region;
        if let Ok(block) = self.arena.grant(region, FIRST_GRANT, false) {
            let mut core = self.lock();
            if core.lanes[lane].life == life {
                // A link without grants takes one.
                drop(core.lanes[lane].grant(block));
            }
        }
    }

    fn refused(&self, refusal: Refusal) {
        self.refusals
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(refusal);
        self.ring();
    }

    /// The worker is ready: it may have jobs.
    fn welcome(&self, index: usize, life: u32) {
        crate::sync::point!("spawn.greeted");
        let mut core = self.lock();
        let lane = &mut core.lanes[index];
        // A process that is gone, or that was told to go, changes nothing.
        if lane.life != life || lane.status != Status::Starting {
            return;
        }
        lane.status = Status::Ready;
        lane.failed_starts = 0;
        core.ready += 1;
        self.parking.engine.notify();
        core.update_flags();
        core.refill();
        // Whoever waits for the last job, or for work to be spread, counts with it.
        core.call_monitor = true;
        self.unlock(core);
        crate::sync::point!("spawn.welcomed");
    }
}
