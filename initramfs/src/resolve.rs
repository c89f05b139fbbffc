//! Makes a lock: asks apt for everything that the recipe's packages depend on, and keeps what the image takes files from.

use std::collections::BTreeSet;

use crate::assemble::{self, AssembleError};
use crate::build::BuildError;
use crate::lock::{Lock, is_kernel, now};
use crate::pool::Pool;
use crate::recipe::{Media, Recipe};
use crate::report;
use crate::store::Store;

/// The packages of a recipe as the mirror has them today. `programs` are ours: they need libraries too.
pub fn resolve(recipe: &Recipe, programs: &assemble::Programs, store: &Store) -> Result<Lock, BuildError> {
    let release = release()?;
    let mut names: Vec<String> = recipe.wanted().into_iter().map(str::to_owned).collect();
    // What programs of ours are linked with.
    names.extend(["libc6".to_owned(), "libstdc++6".to_owned(), "libgcc-s1".to_owned()]);
    names.extend(recipe.kernel.iter().map(|kernel| format!("{}/{release}-{}", kernel.package, kernel.suite)));
    let step = report::step("asking apt");
    let mut packages = store
        .apt(&release)
        .map_err(crate::store::StoreError::from)?
        .closure(&names)
        .map_err(crate::store::StoreError::from)?;
    packages.sort();
    step.done(&format!("{} packages", packages.len()));

    let made = now();
    let all = Lock { release: release.clone(), made, packages };
    let step = report::step("fetching");
    let fetched = store.fetch(&all)?;
    step.done(&format!("{} packages, {}", fetched.packages, report::size(fetched.size_bytes)));
    let step = report::step("looking what is used");
    let pool = Pool::open(&all.packages, store)?;
    let mut used: BTreeSet<String> = assemble::assemble(recipe, &pool, programs)?.packages;
    for file in recipe.media.iter().flat_map(Media::files) {
        let found = pool.find(file).ok_or_else(|| AssembleError::Missing(file.into()))?;
        used.insert(found.package.clone());
    }
    let packages: Vec<_> =
        all.packages.into_iter().filter(|p| used.contains(&p.name) || is_kernel(&p.name)).collect();
    step.done(&format!("{} packages", packages.len()));
    Ok(Lock { release, made, packages })
}

/// The name of this machine's release, as `bookworm`.
fn release() -> Result<String, BuildError> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned()).ok_or(BuildError::NoRelease)
}
