//! Durations, ranges of them, and sizes, as people write them.

use std::time::Duration;

use bytesize::ByteSize;

/// `7d`, `100ms`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period(pub(super) Duration);

/// `100ms..10s`: both ends included, the first not the longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Periods {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

/// `64MiB`, `10kB`, or a whole number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// Reads a duration. The error says what is wrong with the text.
pub(super) fn period(text: &str) -> Result<Period, String> {
    humantime::parse_duration(text)
        .map(Period)
        .map_err(|error| match error {
            humantime::DurationError::UnknownUnit { unit, .. } if !unit.is_empty() => {
                format!("\"{text}\" is no duration: there is no unit \"{unit}\"")
            }
            _ => format!("\"{text}\" is no duration"),
        })
}

/// Reads a range of durations.
pub(super) fn periods(text: &str) -> Result<Periods, String> {
    let Some((min, max)) = text.split_once("..") else {
        return Err(format!("\"{text}\" is no range of durations"));
    };
    let (Period(min), Period(max)) = (period(min.trim())?, period(max.trim())?);
    if min > max {
        return Err(format!("\"{text}\" begins above its end"));
    }
    Ok(Periods { min, max })
}

/// Reads a size.
pub(super) fn size(text: &str) -> Result<Size, String> {
    text.parse::<ByteSize>()
        .map(|size| Size(size.as_u64()))
        .map_err(|_| format!("\"{text}\" is no size"))
}

/// A duration as one writes it in the config.
#[must_use]
pub fn show_period(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (name, unit) in UNITS {
        if rest >= unit {
            text.push_str(&format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A size as one writes it in the config.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    UNITS
        .into_iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("7d", ms(7 * 86_400_000)),
            ("100ms", ms(100)),
            ("1h30m", ms(5_400_000)),
            ("1h 30m", ms(5_400_000)),
        ] {
            assert_eq!(period(text), Ok(Period(expected)), "{text}");
        }
        let backoff = Periods {
            min: ms(100),
            max: ms(10_000),
        };
        assert_eq!(periods("100ms..10s"), Ok(backoff));
        assert_eq!(periods("100ms .. 10s"), Ok(backoff));
        for (text, expected) in [("64MiB", 64 << 20), ("10kB", 10_000), ("512", 512)] {
            assert_eq!(size(text), Ok(Size(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "7", "soon", "-1s", "1 fortnight"] {
            assert!(period(text).is_err(), "{text}");
        }
        for text in ["10s", "10s..1s", "..10s", "1s..x"] {
            assert!(periods(text).is_err(), "{text}");
        }
        for text in ["", "big", "-1", "64MiX"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_are_shown_as_they_are_written() {
        for text in ["0s", "7d", "1h30m", "2m20s", "100ms"] {
            assert_eq!(show_period(period(text).unwrap().0), text);
        }
        assert_eq!(show_size(64 << 20), "64MiB");
        assert_eq!(show_size(1_500), "1500B");
    }
}
