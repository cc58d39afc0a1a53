#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::array::{ArrayMut, MAX_DIMS};

/// A file of the given version, header text and data.
fn file(major: u8, text: &str, data: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY".to_vec();
    file.extend([major, 0]);
    if major == 1 {
        file.extend((text.len() as u16).to_le_bytes());
    } else {
        file.extend((text.len() as u32).to_le_bytes());
    }
    file.extend(text.as_bytes());
    file.extend(data);
    file
}

fn text(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
}

fn parse(text: &str) -> Result<Header, NpyError> {
    Header::read(file(1, text, &[]).as_slice())
}

fn bytes_of<T: Dtype>(array: &[T]) -> &[u8] {
    bytemuck::must_cast_slice(array)
}

fn read_bytes<T: Dtype>(bytes: &[u8]) -> Result<Array<T>, NpyError> {
    let mut saved = tempfile::NamedTempFile::new().unwrap();
    saved.write_all(bytes).unwrap();
    let read = read(saved.path());
    // SAFETY: nothing writes to the temporary file while it is mapped.
    let mapped = unsafe { map(saved.path()) };
    match (&read, &mapped) {
        (Ok(read), Ok(mapped)) => assert_eq!(bytes_of::<T>(read), bytes_of::<T>(mapped)),
        (Ok(_), Err(NpyError::Misaligned { .. })) => {}
        (Err(read), Err(mapped)) => assert_eq!(read.to_string(), mapped.to_string()),
        (read, mapped) => panic!("read: {read:?}, mapped: {mapped:?}"),
    }
    read
}

/// Written by `np.save(f, np.arange(6, dtype='<i2').reshape(2, 3))` with NumPy 2.4.
#[test]
fn a_file_written_by_numpy_is_read() {
    let mut bytes =
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }"
            .to_vec();
    bytes.resize(127, b' ');
    bytes.push(b'\n');
    bytes.extend([0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    let array = read_bytes::<i16>(&bytes).unwrap();
    assert_eq!(array.shape().dims(), [2, 3]);
    assert_eq!(array[..], [0, 1, 2, 3, 4, 5]);
}

#[test]
fn all_versions_are_read_and_others_refused() {
    let text = text("'<u2'", "False", "(2,)");
    for major in 1..=3 {
        let array = read_bytes::<u16>(&file(major, &text, &[1, 0, 2, 0])).unwrap();
        assert_eq!(array[..], [1, 2], "version {major}");
    }
    for major in [0, 4, 255] {
        let error = read_bytes::<u16>(&file(major, &text, &[1, 0, 2, 0])).unwrap_err();
        assert!(matches!(error, NpyError::Version { major: found, .. } if found == major));
    }
}

#[test]
fn entries_in_any_order_and_either_quote_are_read() {
    let header = parse("{ \"shape\" : ( 3 , 4L ) ,\t'descr':'<f8','fortran_order':False}").unwrap();
    assert_eq!(header.shape().dims(), [3, 4]);
    assert_eq!(header.descr(), "<f8");
    assert_eq!(header.check::<f64>().unwrap(), 96);
}

#[test]
fn an_array_without_dimensions_gets_the_shape_1() {
    let bytes = file(1, &text("'|i1'", "False", "()"), &[0xff]);
    let array = read_bytes::<i8>(&bytes).unwrap();
    assert_eq!(array.shape(), Shape::from(1));
    assert_eq!(array[..], [-1]);
}

#[test]
fn errors_name_the_reason() {
    let little = "'<f4'";
    let cases: [(&str, String, &str); 12] = [
        (
            "column-major",
            text(little, "True", "(2, 3)"),
            "ascontiguousarray",
        ),
        ("big-endian", text("'>f4'", "False", "(2,)"), "big-endian"),
        (
            "other type",
            text("'<f8'", "False", "(2,)"),
            "'<f8', not 'f4'",
        ),
        (
            "no order",
            text("'|f4'", "False", "(2,)"),
            "'|f4', not 'f4'",
        ),
        ("fields", text("[('x', '<f4')]", "False", "(2,)"), "record"),
        (
            "7 axes",
            text(little, "False", "(1, 1, 1, 1, 1, 1, 1)"),
            "7 dimensions",
        ),
        (
            "too large",
            text(little, "False", "(4294967296, 4294967296)"),
            "address space",
        ),
        (
            "strides too large",
            text(little, "False", "(0, 4294967296, 4294967296)"),
            "address space",
        ),
        (
            "number too large",
            text(little, "False", "(18446744073709551616,)"),
            "64 bits",
        ),
        (
            "negative",
            text(little, "False", "(-1,)"),
            "number is expected",
        ),
        (
            "not a tuple",
            text(little, "False", "(2)"),
            "comma is expected",
        ),
        (
            "short",
            text(little, "False", "(2,)"),
            "8 bytes, but the file holds only 4",
        ),
    ];
    for (case, text, expected) in cases {
        let error = read_bytes::<f32>(&file(1, &text, &[0; 4])).unwrap_err();
        assert!(error.to_string().contains(expected), "{case}: {error}");
    }
}

/// NumPy records the order in which an array was made even if both orders store it alike.
#[test]
fn column_major_order_is_accepted_where_it_changes_nothing() {
    for shape in [
        "(3,)",
        "()",
        "(0, 3, 2)",
        "(1, 3)",
        "(3, 1)",
        "(1, 3, 1)",
        "(1, 1)",
    ] {
        let (here, there) = (text("'<u2'", "False", shape), text("'<u2'", "True", shape));
        let shape = parse(&here).unwrap().shape();
        let data = &[1, 0, 2, 0, 3, 0][..2 * shape.len().unwrap()];
        let read = read_bytes::<u16>(&file(1, &there, data)).unwrap();
        assert_eq!(read.shape(), shape);
        assert_eq!(read[..], [1, 2, 3][..shape.len().unwrap()]);
    }
    for shape in ["(2, 3)", "(2, 2)", "(2, 1, 3)", "(1, 2, 2)"] {
        let error = parse(&text("'<u2'", "True", shape)).unwrap_err();
        assert!(matches!(error, NpyError::FortranOrder), "{shape}: {error}");
    }
}

#[test]
fn damage_is_reported_with_its_offset() {
    let whole = text("'<f4'", "False", "(2,)");
    for (text, expected) in [
        ("", "at byte 10: a dictionary is expected".to_owned()),
        (
            "{'shape': (1,), 'shape': (1,)}",
            "at byte 26: an entry occurs twice".to_owned(),
        ),
        (
            "{'shapes': (1,)}",
            "at byte 11: an entry other than".to_owned(),
        ),
        (
            "{'descr': '<f4",
            "at byte 20: a string does not end".to_owned(),
        ),
        (
            "{'fortran_order': 0}",
            "at byte 28: True or False is expected".to_owned(),
        ),
        (
            &format!("{whole}x"),
            format!("at byte {}: something follows", 10 + whole.len()),
        ),
        ("{}", "the entry descr is missing".to_owned()),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(&expected), "{text:?}: {error}");
    }
    // Reading the file, truncated anywhere, never panics and never succeeds.
    let whole = file(1, &whole, &[]);
    for end in 0..whole.len() {
        Header::read(&whole[..end]).unwrap_err();
    }
}

#[test]
fn a_header_length_of_4_gib_is_refused_unread() {
    let mut bytes = b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec();
    bytes.extend([b' '; 100]);
    let error = Header::read(bytes.as_slice()).unwrap_err();
    assert!(error.to_string().contains("64 KiB"), "{error}");
}

/// Allocating before comparing with the file's length would end this process.
#[test]
fn an_array_of_4_eib_is_refused_without_allocating() {
    let text = text("'|u1'", "False", "(4611686018427387904,)");
    let error = read_bytes::<u8>(&file(1, &text, &[0; 4])).unwrap_err();
    assert!(matches!(
        error,
        NpyError::Truncated { expected, found: 4 } if expected == 1 << 62
    ));
}

#[test]
fn booleans_are_read_as_bytes() {
    let bytes = file(1, &text("'|b1'", "False", "(3,)"), &[1, 0, 1]);
    assert_eq!(read_bytes::<u8>(&bytes).unwrap()[..], [1, 0, 1]);
    assert!(matches!(
        read_bytes::<i8>(&bytes),
        Err(NpyError::Dtype { .. })
    ));
}

#[test]
fn a_misaligned_map_is_refused() {
    let text = text("'<f8'", "False", "(1,)");
    let odd = if text.len().is_multiple_of(2) {
        text + " "
    } else {
        text
    };
    let mut saved = tempfile::NamedTempFile::new().unwrap();
    saved
        .write_all(&file(1, &odd, &1.5_f64.to_le_bytes()))
        .unwrap();
    // SAFETY: nothing writes to the temporary file while it is mapped.
    let error = unsafe { map::<f64>(saved.path()) }.unwrap_err();
    assert!(matches!(error, NpyError::Misaligned { align: 8, .. }));
    assert_eq!(read::<f64>(saved.path()).unwrap()[..], [1.5]);
}

#[test]
fn bytes_after_the_array_are_not_read() {
    let mut bytes = Vec::new();
    write_to(&mut bytes, [2], &[1_u32, 2]).unwrap();
    write_to(&mut bytes, [3], &[3_u32, 4, 5]).unwrap();
    assert_eq!(read_bytes::<u32>(&bytes).unwrap()[..], [1, 2]);

    let mut reader = bytes.as_slice();
    for expected in [&[1_u32, 2][..], &[3, 4, 5]] {
        let header = Header::read(&mut reader).unwrap();
        let mut array = ArrayMut::<u32>::zeros(header.shape());
        read_into(&header, &mut reader, &mut array).unwrap();
        assert_eq!(array[..], *expected);
    }
    assert!(reader.is_empty());
}

#[test]
fn a_slice_of_another_length_is_refused() {
    let mut bytes = Vec::new();
    write_to(&mut bytes, [2], &[1_u32, 2]).unwrap();
    let header = Header::read(bytes.as_slice()).unwrap();
    let error = read_into::<u32>(&header, &[0; 12][..], &mut [0; 3]).unwrap_err();
    assert!(matches!(error, NpyError::Length { given: 3, .. }));
    let error = write_to(Vec::new(), [2, 2], &[1_u8; 3]).unwrap_err();
    assert!(matches!(error, NpyError::Length { given: 3, .. }));
}

#[test]
fn a_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read::<u8>(dir.path()), Err(NpyError::Io(_))));
}

fn dims() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..5_usize, 1..=6)
}

/// Reads a file by NumPy and returns the dtype, the shape and the elements; `None` without NumPy.
fn by_numpy(path: &Path) -> Option<String> {
    let code = "import sys, numpy; a = numpy.load(sys.argv[1]); print(a.dtype.str, a.shape, a.ravel().tolist())";
    let mut python = std::process::Command::new("python3");
    let output = python.args(["-c", code]).arg(path).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn numpy_reads_what_was_written_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    for (row, shape) in [
        (&[2, 3][..], "(10, 2, 3)"),
        (&[], "(10,)"),
        (&[0], "(0, 0)"),
    ] {
        let path = folder.path().join(shape);
        let mut writer = Writer::<i16>::create(&path, row).unwrap();
        let elements: usize = row.iter().product();
        let parts = (0..5_i16).map(|rows| vec![rows; rows as usize * elements]);
        let all: Vec<i16> = parts
            .inspect(|part| writer.write(part).unwrap())
            .flatten()
            .collect();
        let shape_written = writer.finish().unwrap();
        assert_eq!(read::<i16>(&path).unwrap()[..], all);
        assert_eq!(read::<i16>(&path).unwrap().shape(), shape_written);
        match by_numpy(&path) {
            Some(found) => assert_eq!(found, format!("<i2 {shape} {all:?}")),
            None => eprintln!("no NumPy here: not compared"),
        }
    }
}

#[test]
fn a_writer_takes_whole_rows_and_leaves_no_rows_unless_it_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.npy");
    let mut writer = Writer::<u8>::create(&path, &[3]).unwrap();
    let error = writer.write(&[1, 2, 3, 4]).unwrap_err();
    assert!(matches!(error, NpyError::Length { given: 4, .. }));
    writer.write(&[1, 2, 3]).unwrap();
    drop(writer);
    assert_eq!(read::<u8>(&path).unwrap().shape().dims(), [0, 3]);
    let error = Writer::<u8>::create(&path, &[1; MAX_DIMS]).unwrap_err();
    assert!(matches!(error, NpyError::Rank { rank: 7 }));
    let error = Writer::<u16>::create(&path, &[usize::MAX / 2]).unwrap_err();
    assert!(matches!(error, NpyError::TooLarge { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
    #[test]
    fn written_files_are_read_back(dims in dims(), seed: u64) {
        let shape = Shape::try_from(&dims[..]).unwrap();
        let array = Array::from_fn(shape, |i| seed.wrapping_mul(i as u64 + 1));
        let mut bytes = Vec::new();
        write_to(&mut bytes, shape, &array).unwrap();
        let header = Header::read(bytes.as_slice()).unwrap();
        prop_assert_eq!(header.data_offset() % 64, 0);
        prop_assert_eq!(read_bytes::<u64>(&bytes).unwrap(), array);
    }

    /// Reading rows is reading the whole and taking the rows, if there are such rows.
    #[test]
    fn rows_of_a_file_are_those_of_the_array(dims in dims(), start in 0..6_usize, end in 0..6_usize) {
        let array = Array::from_fn(Shape::try_from(&dims[..]).unwrap(), |i| i as u32);
        let saved = tempfile::NamedTempFile::new().unwrap();
        write(saved.path(), &array).unwrap();
        match read_rows::<u32>(saved.path(), start..end) {
            Ok(rows) => prop_assert_eq!(rows, array.rows(start..end)),
            Err(NpyError::Rows { .. }) => prop_assert!(start > end || end > dims[0]),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn random_bytes_never_panic(
        version in prop_oneof![Just(1_u8), Just(2), Just(3), any::<u8>()],
        tail in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        bytes.extend(&tail);
        let _ = read_bytes::<u16>(&bytes);
        let _ = Header::read(tail.as_slice());
    }

    #[test]
    fn random_dictionaries_never_panic(text in "[{}(),:'\"L0-9 \\\\descrfotanpFTue<>|i_-]{0,80}") {
        let _ = parse(&text);
        let _ = parse(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({text}, }}"));
        let _ = parse(&format!("{{'descr': {text}', 'fortran_order': False, 'shape': (2,), }}"));
    }

    /// Whatever is changed in a file, an accepted header describes no more data than the file has.
    #[test]
    fn mutated_files_are_refused_or_in_bounds(
        dims in dims(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let shape = Shape::try_from(&dims[..]).unwrap();
        let array = Array::from_fn(shape, |i| i as u32);
        let mut bytes = Vec::new();
        write_to(&mut bytes, shape, &array).unwrap();
        for (at, byte) in changes {
            // Change mostly the part that is not padding.
            let at = at.index(bytes.len().min(90));
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(read) = read_bytes::<u32>(&bytes) {
            prop_assert!(size_of_val(&read[..]) <= bytes.len());
        }
    }
}
