//! Conditions on the kernel's arguments: `NAME`, `NAME=VALUE`, `and(...)`, `or(...)`, `not(...)`.

/// Deepest nesting.
const DEPTH: u32 = 16;

/// Whether a condition holds of a kernel's command line, or why it is no condition.
pub fn holds(condition: &str, cmdline: &str) -> Result<bool, String> {
    let arguments: Vec<&str> = cmdline.split_ascii_whitespace().collect();
    let mut rest = condition;
    let holds = term(&mut rest, &arguments, DEPTH)
        .filter(|_| rest.trim().is_empty())
        .ok_or_else(|| format!("condition {condition:?} cannot be read before {:?}", rest.trim()))?;
    Ok(holds)
}

fn term(rest: &mut &str, arguments: &[&str], depth: u32) -> Option<bool> {
    *rest = rest.trim_start();
    let end = rest.find(['(', ')', ',']).unwrap_or(rest.len());
    let word = rest[..end].trim_end();
    let after = &rest[end..];
    let Some(inside) = after.strip_prefix('(') else {
        *rest = after;
        let has = |argument: &&str| {
            *argument == word || argument.split_once('=').is_some_and(|(name, _)| name == word)
        };
        return (!word.is_empty()).then(|| arguments.iter().any(has));
    };
    let depth = depth.checked_sub(1)?;
    *rest = inside;
    let mut terms = vec![term(rest, arguments, depth)?];
    while let Some(more) = rest.trim_start().strip_prefix(',') {
        *rest = more;
        terms.push(term(rest, arguments, depth)?);
    }
    *rest = rest.trim_start().strip_prefix(')')?;
    match (word, terms.as_slice()) {
        ("and", terms) => Some(terms.iter().all(|term| *term)),
        ("or", terms) => Some(terms.iter().any(|term| *term)),
        ("not", [term]) => Some(!term),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_judged_by_the_command_line() {
        let cmdline = "quiet zerotier=abc  debug\n";
        for (condition, expected) in [
            ("quiet", true),
            ("zerotier", true),
            ("zerotier=abc", true),
            ("zerotier=x", false),
            ("absent", false),
            ("and(quiet, not(absent))", true),
            ("or( absent ,and(quiet,absent))", false),
        ] {
            assert_eq!(holds(condition, cmdline), Ok(expected), "{condition}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let deep = format!("{}a{}", "not(".repeat(100), ")".repeat(100));
        for condition in ["", "and()", "and(a", "a)", "a,b", "not(a,b)", "xor(a,b)", "(a)", &deep] {
            assert!(holds(condition, "a").is_err(), "{condition}");
        }
    }
}
