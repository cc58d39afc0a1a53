//! How actors end.

use super::*;

tests![
    it_ends_with_its_last_handle,
    it_can_be_stopped,
    a_worker_with_an_actor_is_not_recycled,
    a_shutdown_answers_every_call,
    an_engine_that_is_dropped_answers_every_call,
];

/// Says where it was dropped.
struct Tells {
    file: String,
}

impl Tells {
    fn new(file: &str) -> Self {
        Self { file: file.into() }
    }

    fn wait_at(&self, gate: &str) {
        pass(gate);
        assert!(!std::path::Path::new(&self.file).exists());
    }
}

impl Drop for Tells {
    fn drop(&mut self) {
        std::fs::write(&self.file, std::process::id().to_string()).unwrap();
    }
}

fn it_ends_with_its_last_handle() {
    let lab = Lab::new(1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dropped");
    let gate = Gate::new();
    let tells = lab.actor(Tells::new, (file.to_str().unwrap(),));
    let other = tells.clone();
    let first = tells.call(Tells::wait_at, (gate.path(),));
    let held = gate.meet();
    let more: Vec<_> = (0..300).map(|_| other.call(|_: &Tells| 7u8, ())).collect();
    drop((tells, other));
    drop(held);
    // What was asked before is answered before.
    first.wait().unwrap();
    assert!(more.into_iter().all(|call| call.wait().unwrap() == 7));
    wait_until("the state is dropped", || file.exists());
    wait_until("in its worker", || {
        std::fs::read_to_string(&file).unwrap() == lab.pid(0).to_string()
    });
    // One that was never called ends as well, and one that panics in its end.
    struct Rude;
    impl Drop for Rude {
        fn drop(&mut self) {
            panic!("good bye");
        }
    }
    drop(lab.actor(|| Rude, ()));
    drop(lab.actor(List::new, ()));
    lab.assert_idle();
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn it_can_be_stopped() {
    let lab = Lab::new(1);
    let list = lab.actor(List::new, ());
    let other = list.clone();
    let before: Vec<_> = (0..100).map(|x| list.call(List::push, (x,))).collect();
    list.stop();
    for list in [&list, &other] {
        let error = list.call(List::seen, ()).wait().unwrap_err();
        assert_eq!(*error.kind(), JobErrorKind::ActorEnded);
        assert!(error.to_string().contains("has ended"), "{error}");
    }
    for (len, call) in (1..).zip(before) {
        assert_eq!(call.wait().unwrap(), len);
    }
    // Whoever comes to its place is somebody else.
    wait_until("it is gone", || {
        list.status().lost == Some(JobErrorKind::ActorEnded)
    });
    let next = lab.actor(List::new, ());
    next.call(List::push, (1,)).wait().unwrap();
    let error = other.call(List::seen, ()).wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::ActorEnded);
    drop((list, other));
    assert_eq!(seen(&next), [1]);
    lab.assert_idle();
}

fn a_worker_with_an_actor_is_not_recycled() {
    let lab = Lab::with(1, |builder| builder.recycle_after_jobs(5));
    let list = lab.actor(List::new, ());
    for x in 0..30 {
        list.call(List::push, (x,)).wait().unwrap();
        lab.submit(|| (), ()).wait().unwrap();
    }
    assert!(seen(&list).into_iter().eq(0..30));
    assert_eq!(lab.stats().workers[0].recycled, 0);
    drop(list);
    wait_until("its time has come", || lab.stats().workers[0].recycled == 1);
    // From then on as ever.
    (0..5).for_each(|_| lab.submit(|| (), ()).wait().unwrap());
    wait_until("the next one's, too", || {
        lab.stats().workers[0].recycled == 2
    });
}

fn a_shutdown_answers_every_call() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let list = lab
        .actor_builder(List::new, ())
        .checkpoint(7, List::seen, List::restore)
        .start();
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

fn an_engine_that_is_dropped_answers_every_call() {
    let lab = Lab::new(2);
    let actors: Vec<_> = (0..4)
        .map(|_| {
            lab.actor_builder(List::new, ())
                .checkpoint(1, List::seen, List::restore)
                .start()
        })
        .collect();
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
