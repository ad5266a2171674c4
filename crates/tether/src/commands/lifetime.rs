//! Times on the command line: `90d`, `24h`.

use tether_wire::grant::MAX_GRANT_LIFE_MS;
use tether_wire::invite::MAX_INVITE_LIFE_MS;

const UNITS: [(&str, u64); 4] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
];

/// A number with s, m, h or d, as milliseconds; what it is for and its longest are said where it is
/// outside.
fn parse(text: &str, what: &str, max_ms: u64, note: &str) -> Result<u64, String> {
    let (count, unit_ms) = UNITS
        .iter()
        .find_map(|(unit, ms)| {
            let count = text.strip_suffix(unit)?;
            let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then_some((count, *ms))
        })
        .ok_or("use a number with s, m, h or d, such as 90d")?;
    // A number with more digits than a u64 has is out of the range too.
    count
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit_ms))
        .filter(|ms| (1..=max_ms).contains(ms))
        .ok_or_else(|| format!("{what} from 1s to {}{note}", duration_text(max_ms)))
}

/// A time in its largest unit.
pub(crate) fn duration_text(ms: u64) -> String {
    UNITS
        .iter()
        .find(|(_, unit_ms)| ms >= *unit_ms)
        .map_or_else(
            || "less than 1s".to_owned(),
            |(unit, unit_ms)| format!("{}{unit}", ms / unit_ms),
        )
}

/// How long a grant holds.
pub(crate) fn parse_grant_ms(text: &str) -> Result<u64, String> {
    parse(text, "a grant holds", MAX_GRANT_LIFE_MS, " (two years)")
}

/// How long an invite can be used.
pub(crate) fn parse_invite_ms(text: &str) -> Result<u64, String> {
    parse(text, "an invite can be used", MAX_INVITE_LIFE_MS, "")
}

/// What is left until a time, or that it is over.
pub(crate) fn left_text(expires_ms: u64, now_ms: u64) -> String {
    match expires_ms.checked_sub(now_ms) {
        Some(left) if left > 0 => duration_text(left),
        _ => "expired".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_and_shown() {
        assert_eq!(parse_grant_ms("90d"), Ok(90 * 86_400_000));
        assert_eq!(parse_grant_ms("15m"), Ok(900_000));
        for bad in ["", "90", "d", "-1d", "0s", "1w", "99999999999999999999d"] {
            assert!(parse_grant_ms(bad).is_err(), "{bad}");
        }
        for outside in ["0s", "733d", "9000d", "99999999999999999999d"] {
            let error = parse_grant_ms(outside).expect_err(outside);
            assert!(error.contains("from 1s to 732d"), "{error}");
        }
        assert_eq!(parse_grant_ms("732d"), Ok(MAX_GRANT_LIFE_MS));
        assert_eq!(parse_invite_ms("90d"), Ok(MAX_INVITE_LIFE_MS));
        let error = parse_invite_ms("91d").expect_err("too long");
        assert!(error.contains("from 1s to 90d"), "{error}");
        assert_eq!(duration_text(90 * 86_400_000), "90d");
        assert_eq!(duration_text(999), "less than 1s");
    }
}
