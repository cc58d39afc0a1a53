//! [`Part`]: some rows of a table, in one array.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamWriter;
use arrow_ipc::{MessageHeader, root_as_message};
use arrow_schema::{ArrowError, SchemaRef};

use arenite::Array;

/// Some rows of a table: an [`Array<u8>`] that contains an Arrow IPC stream. Kernels can take and return parts.
///
/// The columns of [`batches`](Self::batches) refer to the array, without a copy. So a part travels between processes
/// like any array, and other libraries can read its bytes.
///
/// ```
/// use arenite_tables::Part;
/// use arenite_tables::arrow::array::{Float64Array, RecordBatch, cast::AsArray, types::Float64Type};
/// use arenite_tables::arrow::schema::ArrowError;
///
/// // A kernel.
/// fn double(part: &Part) -> Result<Part, ArrowError> {
///     let double = |batch: RecordBatch| {
///         let prices = batch.column(0).as_primitive::<Float64Type>();
///         let doubled: Float64Array = prices.iter().map(|price| price.map(|price| price * 2.0)).collect();
///         RecordBatch::try_from_iter_with_nullable([("price", std::sync::Arc::new(doubled) as _, true)])
///     };
///     let batches: Vec<_> = part.batches()?.into_iter().map(double).collect::<Result<_, _>>()?;
///     Part::new(&batches[0].schema(), &batches)
/// }
///
/// let prices = Float64Array::from(vec![Some(1.5), None]);
/// let batch = RecordBatch::try_from_iter_with_nullable([("price", std::sync::Arc::new(prices) as _, true)])?;
/// let doubled = double(&Part::new(&batch.schema(), &[batch])?)?;
/// assert_eq!(doubled.batches()?[0].column(0).as_primitive::<Float64Type>().value(0), 3.0);
/// # Ok::<(), ArrowError>(())
/// ```
#[derive(Clone)]
pub struct Part {
    stream: Array<u8>,
}

impl Part {
    /// Writes batches of this schema into an array, which is in the arena if this is called in a kernel, elsewhere on
    /// the heap. The array always contains at least one batch, which may be empty.
    ///
    /// # Errors
    /// If a batch has another schema, or cannot be encoded.
    ///
    /// # Panics
    /// If there is no memory for the array (inside a kernel, in the arena).
    #[track_caller]
    pub fn new(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self, ArrowError> {
        let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let mut writer = StreamWriter::try_new(Vec::with_capacity(bytes), schema)?;
        for batch in batches {
            if batch.schema_ref().fields() != schema.fields() {
                return Err(ArrowError::SchemaError(format!(
                    "a batch has the columns {:?}, and its part {:?}",
                    batch.schema_ref().fields(),
                    schema.fields()
                )));
            }
            writer.write(batch)?;
        }
        if batches.is_empty() {
            writer.write(&RecordBatch::new_empty(schema.clone()))?;
        }
        let stream = Array::from_slice(&writer.into_inner()?);
        Ok(Self { stream })
    }

    /// Returns the rows as batches, whose columns refer to this part's array. The content is checked, because another
    /// process may have written it: this takes one pass over text and validity.
    ///
    /// # Errors
    /// If the array is no Arrow stream.
    pub fn batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let decode = || {
            let mut buffer = Buffer::from(bytes::Bytes::from_owner(self.stream.clone()));
            let mut decoder = StreamDecoder::new();
            let mut batches = Vec::new();
            while let Some(batch) = decoder.decode(&mut buffer)? {
                batches.push(batch);
            }
            decoder.finish()?;
            Ok(batches)
        };
        self.header()?;
        // The decoder panics on some streams that a broken worker may write. A panic leaves nothing changed that
        // outlives the call.
        catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
            let broken = "a part is no Arrow stream: its decoder panicked";
            Err(ArrowError::IpcError(broken.into()))
        })
    }

    /// Returns the stream as bytes, for other libraries and for [`Engine::submit`](arenite::Engine::submit).
    pub fn as_array(&self) -> &Array<u8> {
        &self.stream
    }

    /// Returns the schema and the number of rows, according to the headers of the messages.
    pub(super) fn header(&self) -> Result<(SchemaRef, u64), ArrowError> {
        let broken = || ArrowError::IpcError("a part is no Arrow stream".into());
        let mut schema = None;
        let mut rows = 0_u64;
        let mut rest = &self.stream[..];
        loop {
            let Some((&[0xFF, 0xFF, 0xFF, 0xFF], behind)) = rest.split_first_chunk() else {
                return Err(broken());
            };
            let (len, behind) = behind.split_first_chunk().ok_or_else(broken)?;
            let len = u32::from_le_bytes(*len) as usize;
            if len == 0 {
                return Ok((schema.ok_or_else(broken)?, rows));
            }
            let (message, behind) = behind.split_at_checked(len).ok_or_else(broken)?;
            let message = root_as_message(message).map_err(|_| broken())?;
            match message.header_type() {
                MessageHeader::Schema => {
                    let found = message.header_as_schema().ok_or_else(broken)?;
                    schema = Some(arrow_ipc::convert::try_fb_to_schema(found)?.into());
                }
                MessageHeader::RecordBatch => {
                    let batch = message.header_as_record_batch().ok_or_else(broken)?;
                    let length = u64::try_from(batch.length()).map_err(|_| broken())?;
                    rows = rows.checked_add(length).ok_or_else(broken)?;
                    check_buffers(batch, message.bodyLength())?;
                }
                MessageHeader::DictionaryBatch => {
                    let dictionary = message.header_as_dictionary_batch();
                    let values = dictionary.and_then(|dictionary| dictionary.data());
                    check_buffers(values.ok_or_else(broken)?, message.bodyLength())?;
                }
                _ => {}
            }
            let body = usize::try_from(message.bodyLength()).map_err(|_| broken())?;
            rest = behind.get(body..).ok_or_else(broken)?;
        }
    }
}

/// Rejects buffers that share bytes. Each column is checked separately, so if a worker sent a million columns with the
/// same bytes, the time of the check would grow with the square of the message's length.
fn check_buffers(batch: arrow_ipc::RecordBatch<'_>, body: i64) -> Result<(), ArrowError> {
    let mut left = body;
    for buffer in batch.buffers().into_iter().flatten() {
        let len = buffer.length();
        left = left.saturating_sub(len);
        if len < 0 || left < 0 {
            return Err(ArrowError::IpcError(
                "the columns of a part share bytes".into(),
            ));
        }
    }
    Ok(())
}

impl AsRef<Array<u8>> for Part {
    fn as_ref(&self) -> &Array<u8> {
        &self.stream
    }
}

impl From<Part> for Array<u8> {
    fn from(part: Part) -> Self {
        part.stream
    }
}

/// Does not check the array: [`Part::batches`] returns an error if it is no Arrow stream.
impl From<Array<u8>> for Part {
    fn from(stream: Array<u8>) -> Self {
        Self { stream }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part of {} bytes", self.stream.len())
    }
}

// Makes the engine handle a part as its array.
arenite::newtype!(Part, Array<u8>);
