//! The goals: what the engine has to reach, and whether it does.

use arenite_bench::cases::Goal;

use super::figures::CaseFigures;
use super::names;

/// A goal held against the figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The goal in words.
    pub goal: String,
    /// What was reached, in the form the goal has; `None` where something was not measured.
    pub reached: Option<f64>,
    /// Whether that is enough.
    pub met: Option<bool>,
    /// Samples of the one that is measured, or of what it is held against: whichever has fewer.
    pub samples: usize,
}

/// Judges all goals of `case`; `before` are the cases measured earlier in this run.
pub fn judge(case: &CaseFigures, before: &[CaseFigures]) -> Vec<Verdict> {
    case.goals
        .iter()
        .map(|goal| verdict(goal, case, before))
        .collect()
}

fn verdict(goal: &Goal, case: &CaseFigures, before: &[CaseFigures]) -> Verdict {
    let ours = case.ours();
    let theirs = |id: &str| case.system(id)?.median();
    // How many times as quick as the other one: times are turned round, rates are not.
    let speed = |ours: Option<f64>, theirs: Option<f64>| {
        let (ours, theirs) = (ours?, theirs?);
        Some(if case.unit.more_is_better() {
            ours / theirs
        } else {
            theirs / ours
        })
    };
    let best = |id: &str| {
        let system = case.system(id)?;
        if case.unit.more_is_better() {
            system.max()
        } else {
            system.min()
        }
    };
    let earlier = |id: &str| before.iter().find(|case| case.id == id);
    let counted = |id: &str| case.system(id).map_or(0, |system| system.samples.len());
    let (words, reached, at_least, bound) = match *goal {
        Goal::AtMost(bound, id) => (
            format!("at most {bound} × {}", names::system(id)),
            ours.zip(theirs(id)).map(|(ours, theirs)| ours / theirs),
            false,
            bound,
        ),
        Goal::AtLeast(bound, id) => (
            format!("at least {bound} × as quick as {}", names::system(id)),
            speed(ours, theirs(id)),
            true,
            bound,
        ),
        Goal::BestAtLeast(bound, id) => (
            format!(
                "best sample at least {bound} × as quick as the best of {}",
                names::system(id)
            ),
            speed(best("arenite"), best(id)),
            true,
            bound,
        ),
        Goal::Below(bound) => (
            format!("at most {bound} {}", names::unit(case.unit)),
            ours,
            false,
            bound,
        ),
        Goal::AtMostCase(bound, id) => (
            format!("at most {bound} × {id}"),
            ours.zip(earlier(id).and_then(CaseFigures::ours))
                .map(|(ours, theirs)| ours / theirs),
            false,
            bound,
        ),
        ref other => (format!("{other:?}"), None, false, 0.0),
    };
    let samples = match *goal {
        Goal::AtMost(_, id) | Goal::AtLeast(_, id) | Goal::BestAtLeast(_, id) => counted(id),
        Goal::AtMostCase(_, id) => earlier(id).map_or(0, CaseFigures::our_samples),
        _ => usize::MAX,
    };
    Verdict {
        samples: samples.min(case.our_samples()),
        goal: words,
        reached,
        met: reached.map(|reached| {
            if at_least {
                reached >= bound
            } else {
                reached <= bound
            }
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use arenite_bench::cases::Unit;

    use super::super::figures::SystemFigures;
    use super::*;

    fn figures(unit: Unit, goals: &[Goal], systems: &[(&'static str, &[f64])]) -> CaseFigures {
        CaseFigures {
            id: "case".to_owned(),
            title: String::new(),
            unit,
            systems: systems
                .iter()
                .map(|&(id, samples)| SystemFigures {
                    id,
                    samples: samples.to_vec(),
                    written: None,
                    peak: None,
                    absent: None,
                })
                .collect(),
            goals: goals.to_vec(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn times_are_turned_round_and_rates_are_not() {
        let goals = [Goal::AtLeast(2.0, "rayon")];
        let systems: [(&str, &[f64]); 2] = [("arenite", &[10.0]), ("rayon", &[30.0])];
        let time = judge(&figures(Unit::Milliseconds, &goals, &systems), &[]);
        assert_eq!((time[0].reached, time[0].met), (Some(3.0), Some(true)));
        let rate = judge(&figures(Unit::JobsPerSecond(1), &goals, &systems), &[]);
        assert_eq!(rate[0].met, Some(false));
    }

    #[test]
    fn the_best_sample_is_the_quickest() {
        let goals = [Goal::BestAtLeast(4.0, "plain-shm")];
        let systems: [(&str, &[f64]); 2] =
            [("arenite", &[10.0, 90.0]), ("plain-shm", &[80.0, 40.0])];
        let verdicts = judge(&figures(Unit::Milliseconds, &goals, &systems), &[]);
        assert_eq!(
            (verdicts[0].reached, verdicts[0].met),
            (Some(4.0), Some(true))
        );
    }

    #[test]
    fn another_case_must_have_been_measured() {
        let goals = [Goal::AtMostCase(1.3, "scale-1")];
        let systems: [(&str, &[f64]); 1] = [("arenite", &[12.0])];
        let case = figures(Unit::NanosecondsPerJob(1), &goals, &systems);
        assert_eq!(judge(&case, &[])[0].met, None);
        let mut first = case.clone();
        first.id = "scale-1".to_owned();
        first.systems[0].samples = vec![10.0];
        assert_eq!(judge(&case, &[first])[0].met, Some(true));
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        let goals = [Goal::AtMost(1.0, "rayon"), Goal::Below(4.0)];
        let systems: [(&str, &[f64]); 2] = [("arenite", &[5.0]), ("rayon", &[])];
        let verdicts = judge(&figures(Unit::Megabytes, &goals, &systems), &[]);
        assert_eq!(verdicts[0].met, None);
        assert_eq!(verdicts[1].met, Some(false));
        assert_eq!((verdicts[0].samples, verdicts[1].samples), (0, 1));
    }
}
