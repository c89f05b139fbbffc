//! The apt sources of the distribution itself, in both of apt's formats; those of others are left out.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longest file of sources that is read.
const FILE_MAX: u64 = 1 << 20;

/// One source: an archive, its suites, and the key that signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    uris: String,
    suites: Vec<String>,
    components: Vec<String>,
    /// The value of `Signed-By`, with the lines that continue it.
    signed_by: Option<String>,
}

impl Source {
    /// It is the distribution's own: it has this release or one of its companions, and the component `main`.
    fn has(&self, release: &str) -> bool {
        let own = |suite: &String| {
            suite == release || suite.strip_prefix(release).is_some_and(|s| s.starts_with('-'))
        };
        self.suites.iter().any(own) && self.components.iter().any(|component| component == "main")
    }
}

/// The sources below `etc` that have a release.
pub fn of_machine(etc: &Path, release: &str) -> io::Result<Vec<Source>> {
    let mut files: Vec<PathBuf> = vec![etc.join("sources.list")];
    if let Ok(parts) = fs::read_dir(etc.join("sources.list.d")) {
        files.extend(parts.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| fs::metadata(file).is_ok_and(|m| m.len() <= FILE_MAX)) {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(fs::read_to_string(file)?.lines().filter_map(one_line)),
            Some("sources") => sources.extend(stanzas(&fs::read_to_string(file)?)),
            Some(_) | None => {}
        }
    }
    sources.retain(|source| source.has(release));
    Ok(sources)
}

/// A release that single packages are taken from, where those of older ones do not do.
pub const NEWER: &str = "trixie";

/// The text of a file of preferences: from the newer release comes only what is asked for by its name.
pub fn preferences(release: &str) -> String {
    if release == NEWER {
        return String::new();
    }
    format!("Package: *\nPin: release n={NEWER}\nPin-Priority: 100\n")
}

/// The text of a `.sources` file: these, and the backports and the newer release of the archive that has the release itself.
pub fn deb822(sources: &[Source], release: &str) -> String {
    let mut all = sources.to_vec();
    let main = sources.iter().find(|source| source.suites.iter().any(|suite| suite == release));
    for suite in [format!("{release}-backports"), NEWER.to_owned()] {
        let known = sources.iter().any(|source| source.suites.contains(&suite));
        if let (false, Some(main)) = (known, main) {
            all.push(Source { suites: vec![suite], components: vec!["main".into()], ..main.clone() });
        }
    }
    let mut text = String::new();
    for source in all {
        let (suites, components) = (source.suites.join(" "), source.components.join(" "));
        let _ =
            write!(text, "Types: deb\nURIs: {}\nSuites: {suites}\nComponents: {components}\n", source.uris);
        if let Some(key) = source.signed_by {
            let _ = writeln!(text, "Signed-By: {key}");
        }
        text.push('\n');
    }
    text
}

/// `deb [signed-by=KEY] URI SUITE COMPONENT...`
fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim().strip_prefix("deb")?;
    let mut rest = line.strip_prefix(char::is_whitespace)?.trim_start();
    let mut signed_by = None;
    if let Some(after) = rest.strip_prefix('[') {
        let (options, after) = after.split_once(']')?;
        let mut keys =
            options.split_ascii_whitespace().filter_map(|option| option.strip_prefix("signed-by="));
        signed_by = keys.next().map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    let (uris, suite) = (words.next()?, words.next()?);
    Some(Source { uris, suites: vec![suite], components: words.collect(), signed_by })
}

/// The stanzas of deb822 that are of type `deb` and not switched off.
fn stanzas(text: &str) -> Vec<Source> {
    let mut all = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            all.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                let _ = write!(value, "\n{line}");
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    all
}

fn stanza(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let off = field("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if off || !list(field("types")?).iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        uris: list(field("uris")?).join(" "),
        suites: list(field("suites")?),
        components: list(field("components").unwrap_or_default()),
        signed_by: field("signed-by").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Vec<Source> {
        let etc = tempfile::tempdir().unwrap();
        fs::create_dir(etc.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(etc.path().join(name), text).unwrap();
        }
        of_machine(etc.path(), "bookworm").unwrap()
    }

    #[test]
    fn both_formats_give_the_same_and_the_backports_of_the_same_archive() {
        let old = "deb [arch=amd64 signed-by=/k.gpg] http://m/debian bookworm main # all\n#deb http://no bookworm main\n\
             deb-src http://m/debian bookworm main\ndeb http://m/security bookworm-security main\n";
        let new = "# why\nTypes: deb\nURIs: http://m/debian\nSuites: bookworm\nComponents: main\nSigned-By: /k.gpg\n\n\
             Types: deb deb-src\nURIs: http://m/security\nSuites: bookworm-security\nComponents: main\n";
        let old = deb822(&machine(&[("sources.list", old)]), "bookworm");
        let new = deb822(&machine(&[("sources.list.d/debian.sources", new)]), "bookworm");
        assert_eq!(old, new);
        let backports = "Types: deb\nURIs: http://m/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n";
        assert!(old.contains(backports) && !old.contains("no"), "{old}");
    }

    #[test]
    fn sources_of_others_and_what_is_switched_off_are_left_out() {
        let vendor = "deb http://vendor vendor-sdk main\ndeb http://other bookworm stable\n";
        let off = "Enabled: no\nTypes: deb\nURIs: http://m\nSuites: bookworm\nComponents: main\n";
        assert_eq!(machine(&[("sources.list.d/v.list", vendor), ("sources.list.d/o.sources", off)]), []);
        let disabled = machine(&[("sources.list.d/x.list.disabled", "deb http://m bookworm main")]);
        assert_eq!(disabled, []);
    }

    #[test]
    fn a_key_that_is_written_out_stays_whole() {
        let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINB\n -----END PGP PUBLIC KEY BLOCK-----";
        let text =
            format!("Types: deb\nURIs: http://m\nSuites: bookworm\nComponents: main\nSigned-By: {key}\n");
        assert!(deb822(&machine(&[("sources.list.d/d.sources", &text)]), "bookworm").contains(key));
    }
}
