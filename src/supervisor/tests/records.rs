//! Records that are reused: an id refers to its own job until the job is taken, and to nothing afterwards.

use super::super::job_table::JobTable;
use super::*;

#[derive(Clone, Debug)]
enum Use {
    Add,
    /// Takes the job of one of the live ids.
    Remove(prop::sample::Index),
    /// Reads the record of a live id.
    Get(prop::sample::Index),
    /// Reads the record of an id whose job was taken.
    Old(prop::sample::Index),
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let one = prop_oneof![
        4 => Just(Use::Add),
        3 => any::<prop::sample::Index>().prop_map(Use::Remove),
        3 => any::<prop::sample::Index>().prop_map(Use::Get),
        2 => any::<prop::sample::Index>().prop_map(Use::Old),
    ];
    prop::collection::vec(one, 100)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000) / 100))]

    #[test]
    fn an_old_id_is_recognized(uses in uses()) {
        let mut records = JobTable::default();
        let mut alive: Vec<(JobId, u64)> = Vec::new();
        let mut over: Vec<JobId> = Vec::new();
        for (number, what) in (1..).zip(uses) {
            match what {
                Use::Add => {
                    let (id, record) = records.add();
                    record.job = number;
                    prop_assert!(!over.contains(&id), "{id:?} was that of another job");
                    alive.push((id, number));
                }
                Use::Remove(pick) if !alive.is_empty() => {
                    let (id, _) = alive.swap_remove(pick.index(alive.len()));
                    records.remove(id.index);
                    over.push(id);
                }
                Use::Get(pick) if !alive.is_empty() => {
                    let (id, number) = *pick.get(&alive);
                    prop_assert_eq!(records.get(id).job, number);
                }
                Use::Old(pick) if !over.is_empty() => {
                    let id = *pick.get(&over);
                    prop_assert!(records.find(id).is_none(), "{id:?} is a job again");
                }
                _ => {}
            }
            prop_assert_eq!(records.live(), alive.len());
        }
    }
}

#[test]
#[should_panic(expected = "a job is taken once")]
fn an_old_id_panics() {
    let mut records = JobTable::default();
    let (old, _) = records.add();
    records.remove(old.index);
    records.add();
    records.get(old);
}
