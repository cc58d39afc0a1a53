//! The goals of the engine, and whether it reaches them.

use arenite_bench::cases::Goal;

use super::figures::CaseFigures;
use super::names;

/// A goal compared with the figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Description of the goal.
    pub goal: String,
    /// The figure or ratio that is compared with the bound; `None` if a system was not measured.
    pub reached: Option<f64>,
    /// Whether the goal is met; `None` if a system was not measured.
    pub met: Option<bool>,
    /// The number of samples of the engine or of the other system, whichever has fewer.
    pub samples: usize,
}

/// Compares all goals of `case` with its figures. `before` are the cases measured earlier in this run.
pub fn compare(case: &CaseFigures, before: &[CaseFigures]) -> Vec<Outcome> {
    case.goals
        .iter()
        .map(|goal| outcome(goal, case, before))
        .collect()
}

fn outcome(goal: &Goal, case: &CaseFigures, before: &[CaseFigures]) -> Outcome {
    let ours = case.ours();
    let theirs = |id: &str| case.system(id)?.median();
    // Returns how many times as fast as the other system the engine is. A ratio of times is inverted, a ratio of rates
    // is not.
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
            format!("at least {bound} × as fast as {}", names::system(id)),
            speed(ours, theirs(id)),
            true,
            bound,
        ),
        Goal::BestAtLeast(bound, id) => (
            format!(
                "best sample at least {bound} × as fast as the best of {}",
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
    Outcome {
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
    fn ratios_of_times_are_inverted() {
        let goals = [Goal::AtLeast(2.0, "rayon")];
        let systems: [(&str, &[f64]); 2] = [("arenite", &[10.0]), ("rayon", &[30.0])];
        let time = compare(&figures(Unit::Milliseconds, &goals, &systems), &[]);
        assert_eq!((time[0].reached, time[0].met), (Some(3.0), Some(true)));
        let rate = compare(&figures(Unit::JobsPerSecond(1), &goals, &systems), &[]);
        assert_eq!(rate[0].met, Some(false));
    }

    #[test]
    fn the_best_sample_is_the_fastest() {
        let goals = [Goal::BestAtLeast(4.0, "plain-shm")];
        let systems: [(&str, &[f64]); 2] =
            [("arenite", &[10.0, 90.0]), ("plain-shm", &[80.0, 40.0])];
        let outcomes = compare(&figures(Unit::Milliseconds, &goals, &systems), &[]);
        assert_eq!(
            (outcomes[0].reached, outcomes[0].met),
            (Some(4.0), Some(true))
        );
    }

    #[test]
    fn a_goal_about_another_case_needs_its_figures() {
        let goals = [Goal::AtMostCase(1.3, "scale-1")];
        let systems: [(&str, &[f64]); 1] = [("arenite", &[12.0])];
        let case = figures(Unit::NanosecondsPerJob(1), &goals, &systems);
        assert_eq!(compare(&case, &[])[0].met, None);
        let mut first = case.clone();
        first.id = "scale-1".to_owned();
        first.systems[0].samples = vec![10.0];
        assert_eq!(compare(&case, &[first])[0].met, Some(true));
    }

    #[test]
    fn a_goal_without_figures_has_no_outcome() {
        let goals = [Goal::AtMost(1.0, "rayon"), Goal::Below(4.0)];
        let systems: [(&str, &[f64]); 2] = [("arenite", &[5.0]), ("rayon", &[])];
        let outcomes = compare(&figures(Unit::Megabytes, &goals, &systems), &[]);
        assert_eq!(outcomes[0].met, None);
        assert_eq!(outcomes[1].met, Some(false));
        assert_eq!((outcomes[0].samples, outcomes[1].samples), (0, 1));
    }
}
