//! Events of the `tracing` crate in kernels.

use std::fmt::{Debug, Write};

use arenite::Engine;
use arenite::engine::{LogLevel, LogSource};
use nix::sys::signal::{Signal, raise};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, debug, error, info, info_span, warn};

use crate::harness::programs::Program;
use crate::harness::{Calls, builder, tests};
use crate::logs::{Said, flooded};

tests![
    events_arrive_with_level_and_target_among_the_lines,
    an_event_is_among_the_last_words,
    events_reach_the_subscriber_of_the_program,
    a_subscriber_set_at_start_stays,
    a_flood_of_events_is_dropped_and_counted,
];

fn talk(n: u64) {
    let _within = info_span!("span", n).entered();
    eprintln!("before {n}");
    info!(answer = 42, name = "x", "it is {n} \x1b[2J\n");
    debug!("not at this level");
    eprint!("half ");
    warn!(target: "shop", n);
    eprintln!("a line");
    error!("{}", "long ".repeat(2000));
}

fn events_arrive_with_level_and_target_among_the_lines() {
    let said = Said::default();
    let lab = said.lab(2);
    let jobs: Vec<_> = (1..=100u64).map(|n| lab.submit(talk, (n,))).collect();
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    lab.into_inner().shutdown();
    for n in 1..=100 {
        let lines: Vec<_> = said
            .all()
            .into_iter()
            .filter(|line| line.job == Some(n))
            .map(|line| (line.source, line.level, line.target, line.text))
            .collect();
        let (error, lines) = lines.split_last().unwrap();
        let printed = |text: &str| (LogSource::Stderr, None, None, text.to_owned());
        let event = |level, target: &str, text: &str| {
            let target = Some(target.to_owned());
            (LogSource::Event, Some(level), target, text.to_owned())
        };
        let info = format!(r#"it is {n} \u{{1b}}[2J\n answer=42 name="x""#);
        let here = module_path!();
        let expected = [
            printed(&format!("before {n}")),
            event(LogLevel::Info, here, &info),
            event(LogLevel::Warn, "shop", &format!(" n={n}")),
            printed("half a line"),
        ];
        assert_eq!(lines, expected);
        assert_eq!(
            (error.0, error.1),
            (LogSource::Event, Some(LogLevel::Error))
        );
        assert!((4000..4096).contains(&error.3.len()), "{}", error.3.len());
    }
}

fn an_event_is_among_the_last_words() {
    let lab = Said::default().lab(1);
    let die = || {
        warn!("this will not end well");
        raise(Signal::SIGKILL).unwrap();
    };
    let error = lab.error_of(die, ());
    assert_eq!(error.last_words(), ["WARN this will not end well"]);
}

fn a_flood_of_events_is_dropped_and_counted() {
    const EVENTS: u64 = 20_000;
    fn flood() {
        let text = "v".repeat(1000);
        (0..EVENTS).for_each(|_| info!("{text}"));
    }
    let came = flooded(LogSource::Event, |lab| lab.submit(flood, ()));
    assert_eq!(came.passed + came.dropped, EVENTS);
    assert!(came.dropped > 0, "{came:?}");
    assert!(came.passed > 500, "{came:?}");
}

fn a_subscriber_set_at_start_stays() {
    let said = Said::default();
    let keep = said.clone();
    let start = || tracing::subscriber::set_global_default(Printer).unwrap();
    let engine = builder(1, 64 << 20)
        .on_worker_start(start)
        .on_log(move |line| keep.add(line));
    let engine = engine.build().unwrap();
    engine.value_of(|| warn!("mine"), ());
    engine.shutdown();
    let lines = said.all();
    assert_eq!(lines[0].source, LogSource::Stdout, "{lines:?}");
    assert_eq!(lines[0].text, format!("WARN {}: mine", module_path!()));
}

fn events_reach_the_subscriber_of_the_program() {
    let ended = Program::start("events", || Ok(())).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.errors, "shop:0 job 1: printed\n");
    let here = module_path!();
    let expected = [
        format!(r#"DEBUG arenite::worker: at this level worker=0 job=1 origin="{here}""#),
        format!(r#"ERROR arenite::worker: bad worker=0 job=1 origin="{here}""#),
        "done".to_owned(),
    ];
    let lines: Vec<&str> = ended.output.lines().collect();
    assert_eq!(lines, expected);
}

/// The program of the test above.
pub fn program() {
    tracing::subscriber::set_global_default(Printer).unwrap();
    let engine = Engine::builder()
        .workers(1)
        .label("shop")
        .capacity(64 << 20);
    let engine = engine.build().unwrap();
    let talk = || {
        debug!("at this level");
        eprintln!("printed");
        tracing::trace!("below it");
        error!("bad");
    };
    engine.value_of(talk, ());
    engine.shutdown();
}

/// Prints events up to level `DEBUG` on stdout.
struct Printer;

impl Subscriber for Printer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::DEBUG)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                let _ = match field.name() {
                    "message" => write!(self.0, "{value:?}"),
                    name => write!(self.0, " {name}={value:?}"),
                };
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let metadata = event.metadata();
        println!("{} {}: {}", metadata.level(), metadata.target(), text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
