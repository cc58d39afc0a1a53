//! Calls: in order, in one worker, among other jobs.

use super::*;
use crate::harness::assert_kind;

tests![
    other_jobs_run_during_a_call,
    priorities_of_jobs_do_not_reorder_calls,
    a_name_belongs_to_one_actor_at_a_time,
    calls_can_be_cancelled,
    arguments_and_results_of_any_length,
    a_call_of_the_calling_actor_itself_is_rejected,
    an_actor_may_look_up_names_while_it_starts,
    an_inline_engine_gives_the_same,
];

fn other_jobs_run_during_a_call() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let list = new_list(&lab);
    let first = list.call(List::push_at, (0, gate.path()));
    let held = gate.meet();
    let behind: Vec<_> = (1..20).map(|x| list.call(List::push, (x,))).collect();
    // Jobs posted behind the call move to the other worker.
    step("jobs beside a call that takes long");
    let squares = lab.map(|x: u64| x * x, (0..2_000).map(|x| (x,)));
    assert!(squares.map(Result::unwrap).eq((0..2_000).map(|x| x * x)));
    assert!(
        behind.iter().all(|call| !call.is_done()),
        "the calls wait for it"
    );
    drop(held);
    assert_eq!(first.wait().unwrap(), 1);
    for (len, call) in (2..).zip(behind) {
        assert_eq!(call.wait().unwrap(), len);
    }
    assert!(seen(&list).into_iter().eq(0..20));
}

fn priorities_of_jobs_do_not_reorder_calls() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let list = new_list(&lab);
    let first = list.call(List::push_at, (0, gate.path()));
    let held = gate.meet();
    let mut behind = Vec::new();
    for x in 1..600 {
        behind.push(list.call(List::push, (x,)));
        if x % 50 == 0 {
            // Makes the supervisor retract posted jobs.
            lab.job(|| (), ())
                .priority(Priority::High)
                .submit()
                .detach();
        }
    }
    drop(held);
    first.wait().unwrap();
    for (len, call) in (2..).zip(behind) {
        assert_eq!(call.wait().unwrap(), len);
    }
    assert!(seen(&list).into_iter().eq(0..600));
}

fn a_name_belongs_to_one_actor_at_a_time() {
    for lab in [&*Lab::new(1), &Engine::inline()] {
        let list = lab.actor(List::new, ()).start_named("list").unwrap();
        assert_eq!(list.name(), Some("list"));
        let taken = lab.actor(List::new, ()).start_named("list");
        assert_eq!(
            taken.unwrap_err(),
            ActorNameError::Taken {
                name: "list".into()
            }
        );
        let same = lab.actor_named::<List>("list").unwrap();
        same.call(List::push, (1,)).wait().unwrap();
        assert_eq!(seen(&list), [1]);
        let error = lab.actor_named::<Vec<u8>>("list").unwrap_err();
        assert!(error.to_string().contains("Vec<u8>"), "{error}");
        // The name exists as long as any handle does.
        drop(list);
        assert!(lab.actor_named::<List>("list").is_ok());
        drop(same);
        let unknown = ActorNameError::Unknown {
            name: "list".into(),
        };
        assert_eq!(lab.actor_named::<List>("list").unwrap_err(), unknown);
        // Or until the actor is stopped; the next actor of that name is unaffected.
        let first = lab.actor(List::new, ()).start_named("list").unwrap();
        first.stop();
        let second = lab.actor(List::new, ()).start_named("list").unwrap();
        drop(first);
        let found = lab.actor_named::<List>("list").unwrap();
        found.call(List::push, (2,)).wait().unwrap();
        assert_eq!(seen(&second), [2]);
    }
}

fn calls_can_be_cancelled() {
    fn listen(list: &mut List, gate: &str) -> u64 {
        pass(gate);
        while !arenite::cancelled() {
            thread::yield_now();
        }
        list.push(0)
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let list = new_list(&lab);
    let running = list.call(listen, (gate.path(),));
    let held = gate.meet();
    let behind: Vec<_> = (1..600).map(|x| list.call(List::push, (x,))).collect();
    // Some of them are posted to the lane, others queued.
    for call in behind.iter().step_by(2) {
        call.cancel();
    }
    let (dropped, kept): (Vec<_>, Vec<_>) = behind
        .into_iter()
        .enumerate()
        .partition(|(n, _)| n % 4 == 3);
    drop(dropped);
    drop(held);
    running.cancel();
    assert_eq!(
        running.wait().unwrap(),
        1,
        "the value of the method is the answer"
    );
    for (n, call) in kept {
        match call.wait() {
            Ok(_) => assert_eq!(n % 4, 1),
            Err(error) => {
                assert_eq!(n % 2, 0);
                assert_eq!(*error.kind(), JobErrorKind::Cancelled);
            }
        }
    }
    assert!(
        seen(&list)
            .into_iter()
            .eq((0..600).filter(|x| x % 4 == 2 || *x == 0))
    );
    // A running call is killed with its worker.
    let hangs = list.call(listen, (gate.path(),));
    drop(gate.meet());
    hangs.kill();
    assert_eq!(lost(hangs).0, JobErrorKind::Cancelled);
}

fn arguments_and_results_of_any_length() {
    struct Text(String);
    fn new(a: &str, b: &str, numbers: &Array<u64>) -> Text {
        Text(format!("{a}{b}{}", numbers.len()))
    }
    fn append(text: &mut Text, more: &str, also: &Array<u64>) -> (String, Array<u64>) {
        text.0.push_str(more);
        (text.0.clone(), Array::from_fn(also.len(), |i| also[i] + 1))
    }
    let lab = Lab::new(1);
    let numbers = lab.from_fn(10_000, |i| i as u64).unwrap();
    let long = "a long text that does not fit into a slot ".repeat(100);
    let text = lab
        .actor(new, (&long, "b", &numbers))
        .checkpoint(
            1,
            |text: &Text| Array::from_slice(text.0.as_bytes()),
            |saved: &Array<u8>, _: &str, _: &str, _: &Array<u64>| {
                Text(String::from_utf8(saved.to_vec()).unwrap())
            },
        )
        .start();
    let mut expected = format!("{long}b10000");
    for round in 1..6 {
        let (said, more) = text.call(append, (&long, &numbers)).wait().unwrap();
        expected.push_str(&long);
        assert!(said == expected, "{} bytes in round {round}", said.len());
        assert!(more.iter().zip(1..).all(|(&x, n)| x == n));
        wait_until("it is saved", || text.status().checkpoints == round);
        lab.replace(0);
    }
    drop((text, numbers));
    lab.assert_in_use(0);
}

fn an_inline_engine_gives_the_same() {
    fn play(engine: &Engine) -> Vec<String> {
        let list: Actor<List> = engine.actor(|| Ok::<_, String>(List::new()), ()).start();
        let mut said = Vec::new();
        let mut record = |job: Job<u64>| {
            said.push(match job.wait() {
                Ok(value) => value.to_string(),
                Err(error) => match error.kind() {
                    JobErrorKind::Panicked { message, .. } => message.clone(),
                    other => other.to_string(),
                },
            });
        };
        record(list.call(List::push, (5,)));
        let panics = |list: &mut List| -> u64 { panic!("oh {}", list.push(6)) };
        record(list.call(panics, ()));
        record(list.call(|list: &mut List| Err::<u64, _>(list.push(7)), ()));
        record(list.call(|list: &List| list.seen.iter().sum::<u64>(), ()));
        list.stop();
        record(list.call(List::push, (5,)));
        let never: Actor<List> = engine.actor(|| Err::<List, _>("never"), ()).start();
        record(never.call(List::push, (5,)));
        record(saved_list(engine, 1).call(List::push, (5,)));
        said
    }
    let lab = Lab::new(2);
    let said = play(&lab);
    assert_eq!(said, play(&Engine::inline()));
    assert!(said[2].contains('3'), "{said:?}");
    // The state is as the methods left it.
    assert_eq!([&said[0], &said[1], &said[3]], ["1", "oh 2", "18"]);
    assert_eq!(lab.stats().restarts(), 0);
}

/// Without workers, a method can reach its own actor through a handle in a static.
fn a_call_of_the_calling_actor_itself_is_rejected() {
    static LIST: Mutex<Option<Actor<List>>> = Mutex::new(None);
    fn handle() -> Actor<List> {
        LIST.lock().unwrap().clone().unwrap()
    }
    fn again(list: &mut List) -> String {
        list.push(1);
        assert_eq!(handle().status().lost, None, "its status is available");
        let refused = handle().call(List::push, (2,)).wait().unwrap_err();
        assert_kind!(refused, JobErrorKind::Rejected(Rejection::Deadlock { .. }));
        assert!(refused.kernel().contains("push"), "{refused}");
        refused.to_string()
    }
    /// Through another actor.
    fn ask(asker: &mut Actor<List>) -> Result<u64, JobErrorKind> {
        let answer = asker.call(again, ()).wait();
        answer
            .map(|text| text.len() as u64)
            .map_err(|error| error.kind().clone())
    }
    let engine = Engine::inline();
    let list = engine.actor(List::new, ()).start();
    *LIST.lock().unwrap() = Some(list.clone());
    step("a method that calls its own actor");
    let text = list.call(again, ()).wait().unwrap();
    assert!(text.contains("call the function itself"), "{text}");
    let through: Actor<Actor<List>> = engine.actor(handle, ()).start();
    let ask = |asker: &mut Actor<List>| ask(asker).map_err(|why| why.to_string());
    assert_eq!(through.call(ask, ()).wait().unwrap(), text.len() as u64);
    // The rejected calls have had no effect.
    assert!(seen(&list).into_iter().eq([1, 1]));
    // Two actors that call each other.
    static BOTH: Mutex<Vec<Actor<u32>>> = Mutex::new(Vec::new());
    fn both(at: usize) -> Actor<u32> {
        BOTH.lock().unwrap()[at].clone()
    }
    fn first(state: &mut u32) -> String {
        *state += 1;
        let error = both(1).call(second, ()).wait().unwrap();
        format!("{error}, {state}")
    }
    fn second(_: &mut u32) -> String {
        both(0).call(first, ()).wait().unwrap_err().to_string()
    }
    let actors = [(); 2].map(|()| engine.actor(|| 0u32, ()).start());
    BOTH.lock().unwrap().extend(actors.clone());
    step("two actors that call each other");
    let text = actors[0].call(first, ()).wait().unwrap();
    assert!(text.contains("wait for itself") && text.ends_with(", 1"));
    BOTH.lock().unwrap().clear();
    LIST.lock().unwrap().take();
}

fn an_actor_may_look_up_names_while_it_starts() {
    static ENGINE: Mutex<Option<Arc<Engine>>> = Mutex::new(None);
    fn engine() -> Arc<Engine> {
        ENGINE.lock().unwrap().clone().unwrap()
    }
    fn begin() -> Result<String, String> {
        let engine = engine();
        let own = engine.actor_named::<String>("own").unwrap_err();
        let again = engine.actor(List::new, ()).start_named("own");
        let helper = engine.actor(List::new, ()).start_named("helper");
        let helper = helper.map_err(|error| error.to_string())?;
        let found: Actor<List> = engine.actor_named("helper").unwrap();
        drop(helper);
        assert_eq!(found.call(List::push, (1,)).wait(), Ok(1));
        Ok(format!("{own}; {}", again.unwrap_err()))
    }
    *ENGINE.lock().unwrap() = Some(Arc::new(Engine::inline()));
    step("an actor that begins by asking for others");
    let own: Actor<String> = engine().actor(begin, ()).start_named("own").unwrap();
    let said = own.call(String::clone, ()).wait().unwrap();
    assert_eq!(
        said,
        "there is no actor named \"own\"; an actor named \"own\" exists already"
    );
    assert_eq!(own.name(), Some("own"));
    drop(own);
    // Both names are free again.
    for name in ["own", "helper"] {
        assert!(engine().actor(List::new, ()).start_named(name).is_ok());
    }
    ENGINE.lock().unwrap().take();
}
