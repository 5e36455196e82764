//! Go's time layouts: a moment is shown as the reference moment `Mon Jan 2 15:04:05 MST 2006` is written.
//!
//! The words are those of Go's `time/format.go`. Templates mean UTC throughout.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// What a word of a layout stands for, longest first where one begins with another; right of it the
/// same for strftime.
const WORDS: &[(&str, &str)] = &[
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "UTC"),
    ("2006", "%Y"),
    ("_2006", "_%Y"),
    ("__2", "%_3j"),
    ("_2", "%e"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("-07:00:00", "+00:00:00"),
    ("-070000", "+000000"),
    ("-07:00", "+00:00"),
    ("-0700", "+0000"),
    ("-07", "+00"),
    ("Z07:00:00", "Z"),
    ("Z070000", "Z"),
    ("Z07:00", "Z"),
    ("Z0700", "Z"),
    ("Z07", "Z"),
];

/// Shows `moment`, in UTC, as `layout` says.
pub(super) fn format(moment: Timestamp, layout: &str) -> Result<String, String> {
    let moment = moment.to_zoned(TimeZone::UTC);
    let nanoseconds = format!("{:09}", moment.subsec_nanosecond());
    let shown = jiff::fmt::strtime::format(to_strftime(layout, &nanoseconds), &moment);
    shown.map_err(|error| format!("the layout '{layout}' cannot be used: {error}"))
}

fn to_strftime(layout: &str, nanoseconds: &str) -> String {
    let mut format = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        let (word, meaning) = if let Some(digits) = fraction(rest) {
            (1 + digits, shown_fraction(first, rest[1..].starts_with('9'), &nanoseconds[..digits.min(9)]))
        } else if let Some((word, meaning)) = WORDS.iter().find(|(word, _)| is_word(rest, word)) {
            (word.len(), (*meaning).to_owned())
        } else if first == '%' {
            (1, "%%".to_owned())
        } else {
            (first.len_utf8(), first.to_string())
        };
        format.push_str(&meaning);
        rest = &rest[word..];
    }
    format
}

fn is_word(rest: &str, word: &str) -> bool {
    let Some(after) = rest.strip_prefix(word) else { return false };
    // "Janet" and "Month" are no dates.
    let name = word == "Jan" || word == "Mon";
    let year_follows = word == "_2" && after.starts_with("006");
    let goes_on = name && after.starts_with(|c: char| c.is_ascii_lowercase());
    !(goes_on || year_follows)
}

/// Of a fraction that is asked for with nines, the zeros at its end are left out.
fn shown_fraction(point: char, short: bool, digits: &str) -> String {
    match if short { digits.trim_end_matches('0') } else { digits } {
        "" => String::new(),
        digits => format!("{point}{digits}"),
    }
}

/// How many digits of a second are asked for: `.000` or `.999`, not followed by another digit.
fn fraction(rest: &str) -> Option<usize> {
    let digits = rest.strip_prefix(['.', ','])?;
    let digit = digits.chars().next().filter(|digit| matches!(digit, '0' | '9'))?;
    let count = digits.chars().take_while(|c| *c == digit).count();
    (!digits[count..].starts_with(|c: char| c.is_ascii_digit())).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_say_what_they_say_in_go() {
        // Expected values: Go 1.22, time.Unix(1453293673, 0).UTC().Format(layout).
        for (layout, expected) in [
            ("2006-01-02T15:04:05Z07:00", "2016-01-20T12:41:13Z"),
            ("20060102150405", "20160120124113"),
            ("2006-01-02", "2016-01-20"),
            ("060102-1504", "160120-1241"),
            ("Mon, 02 Jan 2006 15:04:05 MST", "Wed, 20 Jan 2016 12:41:13 UTC"),
            ("Monday January _2 3:04PM", "Wednesday January 20 12:41PM"),
            ("Mon Jan 2 15:04:05 -0700 2006", "Wed Jan 20 12:41:13 +0000 2016"),
            ("image-2006.01.02", "image-2016.01.20"),
            ("1/2/06 03:04:05pm", "1/20/16 12:41:13pm"),
            ("002 7%", "020 7%"),
            ("15:04:05.000", "12:41:13.000"),
            ("15:04:05.999", "12:41:13"),
            ("Month Janet v_2006", "Month Janet v_2016"),
        ] {
            let moment = Timestamp::from_second(1_453_293_673).unwrap();
            assert_eq!(format(moment, layout).as_deref(), Ok(expected), "{layout}");
        }
    }
}
