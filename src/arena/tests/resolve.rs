//! Tests of resolving a spec on simulated systems.

use super::super::spec::{ResolvedSpec, SystemInfo};
use super::*;
use crate::sys::{
    self,
    limits::{Memory, Space},
};

const GIB: u64 = 1 << 30;

fn roomy() -> SystemInfo {
    SystemInfo {
        shm: Ok(Space {
            size: 16 * GIB,
            free: 12 * GIB,
        }),
        memory: Memory {
            limit: 32 * GIB,
            contained: false,
            available_contained: false,
            available: 20 * GIB,
        },
        address_space: None,
        file_size: None,
        page: 4096,
    }
}

fn resolve(
    capacity: u64,
    backing: Backing,
    system: &SystemInfo,
) -> Result<ResolvedSpec, ArenaError> {
    let spec = Spec {
        capacity,
        backing,
        writers: 3,
        control_len: 100,
        ..Spec::default()
    };
    spec.resolve(system)
}

fn refused(error: ArenaError) -> (SystemLimit, u64) {
    let text = error.to_string();
    let ArenaError::TooLarge { limit, largest, .. } = error else {
        panic!("{error:?}");
    };
    assert!(text.contains("or lower the capacity"), "{text}");
    (limit, largest)
}

#[test]
fn sizes_are_rounded_to_what_can_be_mapped() {
    let resolved = resolve(3 * GIB + 1, Backing::Auto, &roomy()).unwrap();
    let expected = ResolvedSpec {
        capacity: 3 * GIB + GRANULE,
        backing: Backing::Memfd,
        regions: 4,
        reservation: 3 * GIB + CHUNK,
        control_len: 8192,
    };
    assert_eq!(resolved, expected);
}

#[test]
fn auto_uses_memory_files_however_large_dev_shm_is() {
    let mut system = roomy();
    let backing = |system: &SystemInfo| resolve(GIB, Backing::Auto, system).unwrap().backing;
    assert_eq!(backing(&system), Backing::Memfd);
    system.shm = Ok(Space {
        size: 2 * GIB,
        free: GIB - 1,
    });
    assert_eq!(backing(&system), Backing::Memfd);
    let gone = sys::Error::new("statvfs", nix::errno::Errno::ENOENT, "/dev/shm");
    system.shm = Err(gone.clone());
    assert_eq!(backing(&system), Backing::Memfd);
    // An unknown size is not reported as too small.
    let error = resolve(GIB, Backing::Named, &system).unwrap_err();
    assert_eq!(error, ArenaError::System(gone));
    system.shm = Ok(Space {
        size: 64 << 20,
        free: 64 << 20,
    });
    let error = resolve(GIB, Backing::Named, &system).unwrap_err();
    assert!(error.to_string().contains("--shm-size"), "{error}");
    assert_eq!(refused(error), (SystemLimit::DevShm, 64 << 20));
    assert!(resolve(GIB, Backing::Sealed, &system).is_ok());
}

#[test]
fn the_memory_limit_bounds_the_capacity() {
    let mut system = roomy();
    let error = resolve(33 * GIB, Backing::Memfd, &system).unwrap_err();
    assert_eq!(refused(error), (SystemLimit::Machine, 32 * GIB));
    system.memory.limit = GIB;
    system.memory.contained = true;
    let error = resolve(2 * GIB, Backing::Auto, &system).unwrap_err();
    assert!(error.to_string().contains("container"), "{error}");
    assert_eq!(refused(error), (SystemLimit::Container, GIB));
    // The suggested capacity works, even if the limit is not a multiple of the commit unit.
    system.memory.limit = GIB + 5;
    let error = resolve(GIB + 6, Backing::Auto, &system).unwrap_err();
    assert_eq!(refused(error), (SystemLimit::Container, GIB + 5));
    let all = resolve(GIB + 5, Backing::Auto, &system).unwrap();
    assert_eq!(all.capacity, GIB + GRANULE);
    let error = resolve(u64::MAX, Backing::Auto, &system).unwrap_err();
    assert_eq!(refused(error), (SystemLimit::Container, GIB + 5));
}

#[test]
fn resource_limits_are_named() {
    let mut system = roomy();
    system.address_space = Some(32 * GIB);
    let error = resolve(4 * GIB, Backing::Memfd, &system).unwrap_err();
    assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
    let (limit, largest) = refused(error);
    assert_eq!(limit, SystemLimit::AddressSpace);
    assert!(resolve(largest, Backing::Memfd, &system).is_ok());

    system.address_space = None;
    system.file_size = Some(GIB);
    let error = resolve(4 * GIB, Backing::Memfd, &system).unwrap_err();
    assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
    assert_eq!(refused(error), (SystemLimit::FileSize, GIB));
    assert!(resolve(GIB, Backing::Memfd, &system).is_ok());
}

#[test]
fn unsupported_settings_are_refused_with_a_reason() {
    let mut system = roomy();
    system.page = 65_536;
    let error = resolve(GIB, Backing::Auto, &system).unwrap_err();
    assert!(error.to_string().contains("65536"), "{error}");

    let named = |name: &str, backing| {
        let spec = Spec {
            name: Some(name.into()),
            backing,
            capacity: GIB,
            ..Spec::default()
        };
        spec.resolve(&roomy())
    };
    for name in ["", "a/b", "a b", "..", &"x".repeat(101)] {
        let error = named(name, Backing::Auto).unwrap_err();
        assert_eq!(error, ArenaError::BadName { name: name.into() });
    }
    assert!(named("resize-2_x", Backing::Auto).is_ok());
    assert!(named("x", Backing::Sealed).is_err());

    let spec = Spec {
        control_len: u64::MAX,
        capacity: GIB,
        ..Spec::default()
    };
    assert!(spec.resolve(&roomy()).is_err());
    let spec = Spec {
        writers: u16::MAX,
        capacity: GIB,
        ..Spec::default()
    };
    assert!(spec.resolve(&roomy()).is_err());
}

#[test]
fn a_real_container_limit_or_machine_refuses_at_create() {
    let spec = Spec {
        capacity: 1 << 47,
        ..Spec::default()
    };
    let (limit, largest) = refused(Arena::create(&spec).unwrap_err());
    assert!(matches!(
        limit,
        SystemLimit::Machine | SystemLimit::Container
    ));
    assert!(largest < 1 << 47);
}
