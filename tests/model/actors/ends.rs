//! How actors end.

use super::*;

tests![
    an_actor_ends_with_its_last_handle,
    an_actor_can_be_stopped,
    without_workers_an_actor_can_be_stopped_from_its_method,
    a_worker_with_an_actor_is_not_recycled,
    a_shutdown_answers_every_call,
    a_shutdown_restores_no_unreachable_actor,
    a_dropped_engine_answers_every_call,
    remaining_states_are_dropped_when_the_engine_ends,
    a_slow_drop_of_a_state_is_cut_off,
];

/// Records the process that drops it.
struct DropRecorder {
    file: String,
}

impl DropRecorder {
    fn new(file: &str) -> Self {
        Self { file: file.into() }
    }

    fn wait_at(&self, gate: &str) {
        pass(gate);
        assert!(!std::path::Path::new(&self.file).exists());
    }
}

impl Drop for DropRecorder {
    fn drop(&mut self) {
        std::fs::write(&self.file, std::process::id().to_string()).unwrap();
    }
}

fn an_actor_ends_with_its_last_handle() {
    let lab = Lab::new(1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dropped");
    let gate = Gate::new();
    let recorder = lab
        .actor(DropRecorder::new, (file.to_str().unwrap(),))
        .start();
    let other = recorder.clone();
    let first = recorder.call(DropRecorder::wait_at, (gate.path(),));
    let held = gate.meet();
    let more: Vec<_> = (0..300)
        .map(|_| other.call(|_: &DropRecorder| 7u8, ()))
        .collect();
    drop((recorder, other));
    drop(held);
    // Earlier calls are answered first.
    first.wait().unwrap();
    assert!(more.into_iter().all(|call| call.wait().unwrap() == 7));
    wait_until("the state is dropped", || file.exists());
    wait_until("in its worker", || {
        std::fs::read_to_string(&file).unwrap() == lab.pid(0).to_string()
    });
    // An actor that was never called ends as well, and so does one whose drop panics.
    struct Rude;
    impl Drop for Rude {
        fn drop(&mut self) {
            panic!("good bye");
        }
    }
    drop(lab.actor(|| Rude, ()).start());
    drop(new_list(&lab));
    lab.assert_idle();
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn an_actor_can_be_stopped() {
    let lab = Lab::new(1);
    let list = new_list(&lab);
    let other = list.clone();
    let before: Vec<_> = (0..100).map(|x| list.call(List::push, (x,))).collect();
    list.stop();
    for list in [&list, &other] {
        let error = list.call(List::seen, ()).wait().unwrap_err();
        assert_eq!(*error.kind(), rejected(Rejection::ActorEnded));
        assert!(error.to_string().contains("has ended"), "{error}");
    }
    for (len, call) in (1..).zip(before) {
        assert_eq!(call.wait().unwrap(), len);
    }
    // A new actor at its index is another actor.
    wait_until("it has ended", || {
        list.status().lost == Some(rejected(Rejection::ActorEnded))
    });
    let next = new_list(&lab);
    next.call(List::push, (1,)).wait().unwrap();
    let error = other.call(List::seen, ()).wait().unwrap_err();
    assert_eq!(*error.kind(), rejected(Rejection::ActorEnded));
    drop((list, other));
    assert_eq!(seen(&next), [1]);
    lab.assert_idle();
}

fn without_workers_an_actor_can_be_stopped_from_its_method() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dropped");
    let gate = Gate::new();
    let recorder = Engine::inline()
        .actor(DropRecorder::new, (file.to_str().unwrap(),))
        .start();
    thread::scope(|threads| {
        let call = threads.spawn(|| recorder.call(DropRecorder::wait_at, (gate.path(),)).wait());
        let held = gate.meet();
        step("an actor whose method runs in another thread");
        assert_eq!(recorder.status().lost, None);
        recorder.stop();
        assert_eq!(recorder.status().lost, None, "it still answers");
        let refused = recorder.call(|_: &DropRecorder| (), ()).wait().unwrap_err();
        assert_eq!(*refused.kind(), rejected(Rejection::ActorEnded));
        assert!(!file.exists());
        drop(held);
        call.join().unwrap().unwrap();
    });
    assert!(file.exists(), "the state is dropped");
    assert_eq!(
        recorder.status().lost,
        Some(rejected(Rejection::ActorEnded))
    );
}

fn a_worker_with_an_actor_is_not_recycled() {
    let lab = Lab::with(1, |builder| builder.recycle_after_jobs(5));
    let list = new_list(&lab);
    for x in 0..30 {
        list.call(List::push, (x,)).wait().unwrap();
        lab.submit(|| (), ()).wait().unwrap();
    }
    assert!(seen(&list).into_iter().eq(0..30));
    assert_eq!(lab.stats().workers[0].recycled, 0);
    drop(list);
    wait_until("its deadline has passed", || {
        lab.stats().workers[0].recycled == 1
    });
    // The engine goes on as before.
    (0..5).for_each(|_| lab.submit(|| (), ()).wait().unwrap());
    wait_until("the state of the next one as well", || {
        lab.stats().workers[0].recycled == 2
    });
}

/// A worker dies during the shutdown: restoring its state would take forever.
fn a_shutdown_restores_no_unreachable_actor() {
    fn restore(_: &Array<u64>) -> List {
        loop {
            thread::park();
        }
    }
    let lab = Lab::new(2);
    let list = lab
        .actor(List::new, ())
        .checkpoint(1, List::seen, restore)
        .start();
    list.call(List::push, (1,)).wait().unwrap();
    await_saved(&list, 1);
    // One job in each worker.
    let (others, held) = at_gates(2, |gate| lab.submit(pass, (gate,)));
    let pid = lab.pid(here(&list));
    let engine = lab.into_inner();
    thread::scope(|threads| {
        let ending = threads.spawn(move || engine.shutdown());
        wait_until("the engine takes no calls", || {
            // A call that it accepts waits behind the job in its lane, and is cancelled.
            let refused = list.call(List::pid, ()).wait_timeout(Duration::ZERO);
            refused.is_some_and(|call| *call.unwrap_err().kind() == JobErrorKind::ShutDown)
        });
        send_signal(pid, Signal::SIGKILL);
        wait_until("the state is lost", || list.status().lost.is_some());
        assert_eq!(list.status().lost, Some(JobErrorKind::ShutDown));
        drop(held);
        step("the end of the engine");
        ending.join().unwrap();
    });
    let ended = others.into_iter().map(|other| other.wait().is_ok());
    assert_eq!(ended.filter(|&is_ok| is_ok).count(), 1);
}

fn a_shutdown_answers_every_call() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let list = saved_list(&lab, 7);
    let first = list.call(List::push_at, (0, gate.path()));
    let held = gate.meet();
    let calls: Vec<_> = (1..1_000).map(|x| list.call(List::push, (x,))).collect();
    let engine = lab.into_inner();
    let ending = thread::spawn(move || engine.shutdown());
    drop(held);
    step("the engine to finish everything");
    ending.join().unwrap();
    first.wait().unwrap();
    for (len, call) in (2..).zip(calls) {
        assert_eq!(call.wait().unwrap(), len);
    }
    let error = list.call(List::seen, ()).wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::ShutDown);
    list.stop();
}

fn a_dropped_engine_answers_every_call() {
    let lab = Lab::new(2);
    let actors: Vec<_> = (0..4).map(|_| saved_list(&lab, 1)).collect();
    let calls: Vec<_> = actors
        .iter()
        .flat_map(|list| {
            let hangs = list.call(List::hang, ());
            let behind = (0..300).map(|_| list.call(List::hang, ()));
            [hangs].into_iter().chain(behind).collect::<Vec<_>>()
        })
        .collect();
    drop(lab.into_inner());
    for call in calls {
        assert_eq!(*call.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
    }
}

/// Appends a line when dropped; then panics or hangs if asked to.
struct Last {
    file: String,
    line: String,
    way: u8,
    given: Array<u32>,
}

impl Last {
    fn new(file: &str, line: &str, way: u8, given: &Array<u32>) -> Self {
        Self {
            file: file.into(),
            line: line.into(),
            way,
            given: given.clone(),
        }
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        use std::io::Write;
        // It can make arrays, and still has those that it was given.
        let array = Array::from_fn(1000, |i| i as u32 + self.given[1]);
        assert!(array[999] == 1006 && !arenite::cancelled());
        println!("good bye from {}", self.line);
        let mut file = std::fs::File::options()
            .append(true)
            .open(&self.file)
            .unwrap();
        // In one write: another worker writes to the file as well.
        file.write_all(format!("{}\n", self.line).as_bytes())
            .unwrap();
        match self.way {
            0 => {}
            1 => panic!("{} panics", self.line),
            _ => loop {
                thread::park();
            },
        }
    }
}

/// The lines written by dropped states, sorted.
fn left_in(file: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn remaining_states_are_dropped_when_the_engine_ends() {
    // In the first and in other lanes; by shutdown and by dropping the engine; with and without handles.
    for (lanes, drops, keeps) in [(1, false, true), (1, true, true), (3, false, false)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let said = std::sync::Arc::new(Mutex::new(Vec::new()));
        let lines = std::sync::Arc::clone(&said);
        let lab = Lab::with(2, |builder| {
            builder.lanes(lanes).on_log(move |line| {
                lines.lock().unwrap().push((line.job, line.text.clone()));
            })
        });
        let given = lab.from_slice(&[6u32, 7]).unwrap();
        let actor = |n: usize| {
            let (line, way) = (format!("state {n}"), u8::from(n == 5));
            lab.actor(Last::new, (&path, &line, way, given.clone()))
                .start()
        };
        let actors: Vec<_> = (0..8).map(actor).collect();
        for actor in &actors {
            actor.call(|_: &Last| (), ()).wait().unwrap();
        }
        // One has ended before, another is lost with its worker.
        let mut actors = actors;
        drop(actors.pop());
        wait_until("one has ended", || left_in(file.path()) == ["state 7"]);
        let pid = |actor: &Actor<Last>| {
            wait_until("the actor has a worker", || actor.status().worker.is_some());
            lab.pid(actor.status().worker.unwrap() as usize)
        };
        let gone = pid(&actors[0]);
        let kept = actors.iter().map(|actor| pid(actor) != gone);
        let kept: Vec<_> = kept.zip(0..).filter(|(kept, _)| *kept).collect();
        send_signal(gone, Signal::SIGKILL);
        wait_until("they are lost", || actors[0].status().lost.is_some());
        if !keeps {
            // Their ends are not waited for.
            actors.truncate(4);
        }
        step("the engine to end");
        let engine = lab.into_inner();
        let ending = std::time::Instant::now();
        match drops {
            true => drop(engine),
            false => engine.shutdown(),
        }
        let took = ending.elapsed();
        let mut expected: Vec<_> = kept.iter().map(|(_, n)| format!("state {n}")).collect();
        expected.push("state 7".into());
        let how = format!("{lanes} lanes, drops: {drops}, keeps: {keeps}, after {took:?}");
        assert_eq!(left_in(file.path()), expected, "{how}");
        assert_eq!(expected.len(), 4, "half of the calls were lost");
        let said = said.lock().unwrap();
        let texts = |part: &str| said.iter().filter(|(_, text)| text.contains(part)).count();
        assert_eq!(texts("good bye from"), 4, "{said:?}");
        if keeps {
            assert_eq!(texts("when it was dropped: state 5 panics"), 1, "{said:?}");
            // Only the actor that ended before had a job.
            let of_jobs = said.iter().filter(|(job, _)| job.is_some()).count();
            assert_eq!(of_jobs, 1, "{said:?}");
        }
        drop(given);
        drop(actors);
    }
}

fn a_slow_drop_of_a_state_is_cut_off() {
    // Grows until the first state has time to write its line, on a busy machine.
    let mut grace = Duration::from_millis(100);
    let left = loop {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let lab = Lab::with(1, |builder| builder.grace(grace));
        let given = lab.from_slice(&[6u32, 7]).unwrap();
        let actors = [2, 2].map(|way| {
            lab.actor(Last::new, (&path, "stays", way, given.clone()))
                .start()
        });
        for actor in &actors {
            actor.call(|_: &Last| (), ()).wait().unwrap();
        }
        step(format!("the worker to be killed after {grace:?}"));
        lab.into_inner().shutdown();
        match left_in(file.path()) {
            left if left.is_empty() => grace *= 2,
            left => break left,
        }
    };
    assert_eq!(left, ["stays"], "the second one is not reached");
}
