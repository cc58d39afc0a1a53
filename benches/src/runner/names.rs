//! Names and numbers in the form in which they are displayed.

use arenite_bench::cases::Unit;

/// Returns whether this system is the engine with default settings, with which the other systems are compared.
pub fn is_ours(id: &str) -> bool {
    matches!(id, "arenite" | "on" | "fused")
}

/// Returns the name of a system, as used in a sentence or next to a bar.
pub fn system(id: &str) -> &str {
    match id {
        "on" => "arenite, with it",
        "off" => "arenite, without it",
        "fused" => "arenite",
        "unfused" => "arenite, a job for each node",
        "independent" => "arenite, without dependencies",
        "sandbox" => "arenite, sandboxed",
        "rayon" => "rayon (threads)",
        "spin" => "bare, spinning, two cores",
        "futex" => "bare futex, two cores",
        "futex-one-core" => "bare futex, one core",
        "unix-socket" => "Unix socket",
        "pipe" => "pipe",
        "ipc-channel" => "ipc-channel",
        "ipc-channel-shm" => "ipc-channel, shared memory",
        "memcpy" => "one copy in one thread",
        "one-thread" => "one thread",
        "plain-shm" => "plain shared memory",
        "bare-spawn" => "two bare processes",
        "procspawn" => "procspawn",
        "ideal" => "the bare work, divided by hand",
        "vipsthumbnail" => "vipsthumbnail",
        "vipsthumbnail-p2" => "vipsthumbnail, xargs -P2",
        other => other,
    }
}

/// Returns the unit in the form that follows a number.
pub fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Microseconds => "µs",
        Unit::Milliseconds => "ms",
        Unit::JobsPerSecond(_) => "jobs/s",
        Unit::ImagesPerSecond(_) => "images/s",
        Unit::NanosecondsPerJob(_) => "ns/job",
        Unit::CpuMilliseconds => "ms of processor time",
        Unit::Megabytes => "MB",
    }
}

/// Formats a number with three significant digits, or as a whole number with separated thousands.
pub fn number(x: f64) -> String {
    if !x.is_finite() {
        return "–".to_owned();
    }
    let digits = match x.abs() {
        a if a >= 99.95 => 0,
        a if a >= 9.995 => 1,
        a if a >= 0.9995 => 2,
        a if a >= 0.0995 => 3,
        0.0 => 0,
        _ => 4,
    };
    let plain = format!("{x:.digits$}");
    if digits > 0 {
        return plain;
    }
    let (sign, whole) = plain
        .strip_prefix('-')
        .map_or(("", plain.as_str()), |rest| ("-", rest));
    // More than four significant digits would be noise.
    let whole = match whole.len() {
        len if len > 4 => {
            let scale = 10_f64.powi(len as i32 - 3);
            format!("{:.0}", (x.abs() / scale).round() * scale)
        }
        _ => whole.to_owned(),
    };
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}")
}

/// Compares another figure with the engine's: "3.2× slower".
pub fn factor(ours: f64, theirs: f64, unit: Unit) -> String {
    if !(ours > 0.0 && theirs > 0.0) {
        return String::new();
    }
    let (factor, words) = match (theirs > ours, unit) {
        (true, Unit::Megabytes) => (theirs / ours, "more"),
        (false, Unit::Megabytes) => (ours / theirs, "less"),
        (more, unit) if more == unit.more_is_better() => {
            (if more { theirs / ours } else { ours / theirs }, "faster")
        }
        (more, _) => (if more { theirs / ours } else { ours / theirs }, "slower"),
    };
    match factor {
        f if f < 1.005 => "the same".to_owned(),
        f => format!("{}× {words}", number(f)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits() {
        let shown: Vec<String> = [0.0, 0.1234, 0.03, 1.234, 12.34, 123.4, 1234.0, 7_432_123.0]
            .into_iter()
            .map(number)
            .collect();
        assert_eq!(
            shown,
            [
                "0",
                "0.123",
                "0.0300",
                "1.23",
                "12.3",
                "123",
                "1,234",
                "7,430,000"
            ]
        );
        assert_eq!(number(99.97), "100");
        assert_eq!(number(f64::NAN), "–");
    }

    #[test]
    fn factors_name_their_direction() {
        assert_eq!(factor(2.0, 5.0, Unit::Milliseconds), "2.50× slower");
        assert_eq!(factor(5.0, 2.0, Unit::Milliseconds), "2.50× faster");
        assert_eq!(factor(2.0, 5.0, Unit::JobsPerSecond(1)), "2.50× faster");
        assert_eq!(factor(5.0, 2.0, Unit::JobsPerSecond(1)), "2.50× slower");
        assert_eq!(factor(1.0, 1.001, Unit::Milliseconds), "the same");
        assert_eq!(factor(1.0, 2.0, Unit::Megabytes), "2.00× more");
        assert_eq!(factor(0.0, 2.0, Unit::CpuMilliseconds), "");
    }
}
