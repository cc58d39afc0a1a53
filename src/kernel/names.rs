//! Names that the program gives to kernels at run time. The name of a kernel has the lifetime `'static`, so each given
//! name is stored once for all engines and never freed. The number of names is bounded.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::NAME_LIMIT;

/// The maximum number of names of all engines of this process together. Each name has at most [`NAME_LIMIT`] bytes.
const MAX_NAMES: usize = 1 << 16;

static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

/// Returns the stored copy of a name, truncated to [`NAME_LIMIT`] bytes. `None` if there are too many names.
pub(crate) fn stored(name: &str) -> Option<&'static str> {
    store(&NAMES, name, MAX_NAMES)
}

fn store(names: &Mutex<HashSet<&'static str>>, name: &str, most: usize) -> Option<&'static str> {
    let name = &name[..name.floor_char_boundary(NAME_LIMIT)];
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return Some(known);
    }
    if names.len() == most {
        return None;
    }
    let name: &'static str = Box::leak(name.into());
    names.insert(name);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_stored_once() {
        let names = Mutex::default();
        let one = store(&names, "module.f", 2);
        let again = store(&names, &String::from("module.f"), 2);
        assert!(
            one.zip(again)
                .is_some_and(|(one, again)| std::ptr::eq(one, again))
        );
        assert_eq!(store(&names, "module.g", 2), Some("module.g"));
        assert_eq!(store(&names, "module.h", 2), None, "there is no room");
        assert_eq!(store(&names, "module.f", 2), one, "known names need none");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = "ü".repeat(NAME_LIMIT);
        let stored = store(&Mutex::default(), &name, 1);
        assert_eq!(stored, Some(&name[..NAME_LIMIT]));
    }
}
