//! Durations on the command line.

use std::time::Duration;

/// Parses a duration: `30s`, `500ms`, `1.5m`, `1h30m`; a number alone counts seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.starts_with('-') {
        return Err("it must be more than 0".to_owned());
    }
    let mut seconds = 0.0;
    loop {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = rest.strip_suffix(digits).unwrap_or_default();
        let number: f64 = number
            .parse()
            .map_err(|_| format!("'{rest}' is not a duration"))?;
        let next = digits
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(digits.len());
        let (unit, behind) = digits.split_at(next);
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "" if rest.len() == text.trim().len() && behind.is_empty() => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => {
                return Err(format!(
                    "'{unit}' is no unit of time; write 30s, 500ms or 2m"
                ));
            }
        };
        seconds += number * factor;
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time.as_millis() > 0 => Ok(time),
        Ok(_) => Err("it must be a millisecond at least".to_owned()),
        Err(_) => Err("it is too long".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_with_their_units() {
        let millis = |text| duration(text).map(|time| time.as_millis());
        for (text, expected) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("1.5m", 90_000),
            ("1h30m", 5_400_000),
            ("2 min", 120_000),
            ("7", 7_000),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "-1", "1x", "1m30", "0s", "1e3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
