//! Calls of a map whose iterator does not return.

use super::*;

/// No job is in flight, and yet only the first caller in the line is admitted.
#[test]
fn a_call_that_is_not_admitted_queues_until_its_map_continues() {
    for goes_on in [true, false] {
        let (shared, mut consumers) = fixture(1, 1);
        // One job runs at a time.
        shared.lock().admission = Some(Box::new(Admission::new(1)));
        let (kernel, options) = (kernel(), JobOptions::default());
        let unsent = Arc::new(PendingBatch::default());
        let mut written = unsent.lock();
        written.begin(&options);
        for _ in 0..2 {
            written.add(|| shared.arena.id(), |_| {});
        }
        shared.watch_pending(&unsent, &mut written, &kernel, &options);
        drop(written);
        // The first check finds new calls, the next check finds no further calls.
        shared.send_stalled_batches();
        shared.send_stalled_batches();
        let mut written = unsent.lock();
        assert_eq!((written.sent().count(), written.len()), (1, 1));
        assert_eq!(consumers[0].next(), Next::Run);
        consumers[0].finish(false, 0, None);
        assert!(shared.try_admit_job(&kernel, 0).is_err());
        if goes_on {
            shared.leave_admission_line(written.end());
            assert!(shared.try_admit_job(&kernel, 0).is_ok());
        } else {
            drop(written);
            shared.send_stalled_batches();
            let mut written = unsent.lock();
            assert_eq!((written.sent().count(), written.len()), (1, 0));
        }
    }
}
