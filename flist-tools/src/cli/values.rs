//! Values of options, judged as they are read. The errors follow the word that the user wrote.

use g8_fs::settings::size;

pub(super) fn frame(text: &str) -> Result<u32, String> {
    use g8_fs::format::map::{FRAME_STEP, MAX_FRAME, MIN_FRAME};
    let bytes = size(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|b| (MIN_FRAME..=MAX_FRAME).contains(b) && b % FRAME_STEP == 0)
        .ok_or_else(|| format!("{bytes} is not a multiple of 4K between 4K and 1008K"))
}

pub(super) fn owner(text: &str) -> Result<g8_fs::pack::OwnerMap, String> {
    let parsed = text.split_once(':').and_then(|(uid, gid)| {
        Some(g8_fs::pack::OwnerMap { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    });
    parsed.ok_or_else(|| "an owner is UID:GID in numbers, such as 0:0".into())
}

pub(super) fn pin_name(text: &str) -> Result<String, String> {
    // Kubo takes names of up to 255 bytes.
    match text.len() {
        1..=240 if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err("a name is 1 to 240 bytes without control characters".into()),
    }
}

pub(super) fn key(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.len() {
        1..=100 if text.chars().all(plain) => Ok(text.to_owned()),
        _ => Err("the name of a key is 1 to 100 letters, digits and -_.".into()),
    }
}

pub(super) fn span(text: &str) -> Result<String, String> {
    let number = text.strip_suffix(['s', 'm', 'h']);
    match number.and_then(|number| number.parse::<u32>().ok()) {
        Some(1..) => Ok(text.to_owned()),
        Some(0) | None => Err("a time is a number with s, m or h, such as 24h".into()),
    }
}

pub(super) fn key_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        Some(_) | None => Err("this is KEY=VALUE".into()),
    }
}

pub(super) fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("the path must begin with /".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_bounded() {
        assert_eq!(frame("1008K").unwrap(), 1_032_192);
        frame("1M").unwrap_err();
        frame("5000").unwrap_err();
    }
}
