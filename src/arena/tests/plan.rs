//! What a system can and cannot have, on made-up systems.

use super::super::spec::{Plan, Surroundings};
use super::*;
use crate::sys::{
    self,
    limits::{Memory, Space},
};

const GIB: u64 = 1 << 30;

fn roomy() -> Surroundings {
    Surroundings {
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

fn plan(capacity: u64, backing: Backing, around: &Surroundings) -> Result<Plan, ArenaError> {
    let spec = Spec {
        capacity,
        backing,
        writers: 3,
        control_len: 100,
        ..Spec::default()
    };
    spec.plan(around)
}

fn refused(error: ArenaError) -> (Limit, u64) {
    let text = error.to_string();
    let ArenaError::TooLarge { limit, largest, .. } = error else {
        panic!("{error:?}");
    };
    assert!(text.contains("or lower the capacity"), "{text}");
    (limit, largest)
}

#[test]
fn sizes_are_rounded_to_what_can_be_mapped() {
    let plan = plan(3 * GIB + 1, Backing::Auto, &roomy()).unwrap();
    let expected = Plan {
        capacity: 3 * GIB + GRANULE,
        backing: Backing::Memfd,
        regions: 4,
        reservation: 3 * GIB + CHUNK,
        control_len: 8192,
    };
    assert_eq!(plan, expected);
}

#[test]
fn auto_leaves_dev_shm_alone_whatever_room_it_has() {
    let mut around = roomy();
    let backing = |around: &Surroundings| plan(GIB, Backing::Auto, around).unwrap().backing;
    assert_eq!(backing(&around), Backing::Memfd);
    around.shm = Ok(Space {
        size: 2 * GIB,
        free: GIB - 1,
    });
    assert_eq!(backing(&around), Backing::Memfd);
    let gone = sys::Error::new("statvfs", nix::errno::Errno::ENOENT, "/dev/shm");
    around.shm = Err(gone.clone());
    assert_eq!(backing(&around), Backing::Memfd);
    // Whose size is not known is not said to be too small.
    let error = plan(GIB, Backing::Named, &around).unwrap_err();
    assert_eq!(error, ArenaError::System(gone));
    around.shm = Ok(Space {
        size: 64 << 20,
        free: 64 << 20,
    });
    let error = plan(GIB, Backing::Named, &around).unwrap_err();
    assert!(error.to_string().contains("--shm-size"), "{error}");
    assert_eq!(refused(error), (Limit::DevShm, 64 << 20));
    assert!(plan(GIB, Backing::Sealed, &around).is_ok());
}

#[test]
fn the_memory_limit_bounds_the_capacity() {
    let mut around = roomy();
    let error = plan(33 * GIB, Backing::Memfd, &around).unwrap_err();
    assert_eq!(refused(error), (Limit::Machine, 32 * GIB));
    around.memory.limit = GIB;
    around.memory.contained = true;
    let error = plan(2 * GIB, Backing::Auto, &around).unwrap_err();
    assert!(error.to_string().contains("container"), "{error}");
    assert_eq!(refused(error), (Limit::Container, GIB));
    // What is said to do does, also where the limit is no multiple of what is committed at once.
    around.memory.limit = GIB + 5;
    let error = plan(GIB + 6, Backing::Auto, &around).unwrap_err();
    assert_eq!(refused(error), (Limit::Container, GIB + 5));
    let all = plan(GIB + 5, Backing::Auto, &around).unwrap();
    assert_eq!(all.capacity, GIB + GRANULE);
    let error = plan(u64::MAX, Backing::Auto, &around).unwrap_err();
    assert_eq!(refused(error), (Limit::Container, GIB + 5));
}

#[test]
fn resource_limits_are_named() {
    let mut around = roomy();
    around.address_space = Some(32 * GIB);
    let error = plan(4 * GIB, Backing::Memfd, &around).unwrap_err();
    assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
    let (limit, largest) = refused(error);
    assert_eq!(limit, Limit::AddressSpace);
    assert!(plan(largest, Backing::Memfd, &around).is_ok());

    around.address_space = None;
    around.file_size = Some(GIB);
    let error = plan(4 * GIB, Backing::Memfd, &around).unwrap_err();
    assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
    assert_eq!(refused(error), (Limit::FileSize, GIB));
    assert!(plan(GIB, Backing::Memfd, &around).is_ok());
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let mut around = roomy();
    around.page = 65_536;
    let error = plan(GIB, Backing::Auto, &around).unwrap_err();
    assert!(error.to_string().contains("65536"), "{error}");

    let named = |name: &str, backing| {
        let spec = Spec {
            name: Some(name.into()),
            backing,
            capacity: GIB,
            ..Spec::default()
        };
        spec.plan(&roomy())
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
    assert!(spec.plan(&roomy()).is_err());
    let spec = Spec {
        writers: u16::MAX,
        capacity: GIB,
        ..Spec::default()
    };
    assert!(spec.plan(&roomy()).is_err());
}

#[test]
fn a_real_container_limit_or_machine_refuses_at_create() {
    let spec = Spec {
        capacity: 1 << 47,
        ..Spec::default()
    };
    let (limit, largest) = refused(Arena::create(&spec).unwrap_err());
    assert!(matches!(limit, Limit::Machine | Limit::Container));
    assert!(largest < 1 << 47);
}
