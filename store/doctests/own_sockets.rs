// Included by the programs of the documentation. A function that runs the rest of the program in a process whose
// sockets are in a folder of their own: the names in the program may be those of real servers. There is a store `main`,
// and a service `photos`. A program that `serves` photos itself is ended after the answer to a call.
|serves: bool| {
    use std::os::unix::fs::DirBuilderExt;

    use arenite::{Array, Engine};
    use arenite_store::{Server, service};

    fn brighten(photo: &Array<u8>, by: u8) -> Array<u8> {
        Array::from_fn(photo.shape(), |i| photo[i].saturating_add(by))
    }

    if std::env::var_os("ARENITE_DOCTEST").is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sockets = folder.path().join("arenite");
    std::fs::DirBuilder::new().mode(0o700).create(&sockets).unwrap();
    let socket = |name: &str| sockets.join(name).into_os_string().into_string().unwrap();
    let store = Server::bind(&socket("main.sock")).unwrap();
    std::thread::spawn(|| store.run());
    if !serves {
        let photos = service::Service::new(Engine::inline()).kernel("brighten", brighten);
        let photos = photos.bind(&socket("photos.sock")).unwrap();
        std::thread::spawn(|| photos.run());
    }
    let mut program = std::process::Command::new(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("ARENITE_DOCTEST", "1")
        .spawn()
        .unwrap();
    if serves {
        let photos = loop {
            if let Ok(photos) = service::connect(&socket("photos.sock")) {
                break photos;
            }
            assert!(program.try_wait().unwrap().is_none(), "the service has ended");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let photo = Array::from_slice(&[1_u8, 2, 250]);
        let bright = photos.call::<Array<u8>>("brighten", (&photo, 10_u8)).wait();
        program.kill().unwrap();
        program.wait().unwrap();
        assert_eq!(bright.unwrap()[..], [11, 12, 255]);
    } else {
        assert!(program.wait().unwrap().success());
    }
    drop(folder);
    std::process::exit(0);
}
