//! Stores the arguments of a graph's nodes until their jobs are submitted. There is one column for each kernel, so that
//! a node needs no allocation of its own.

use std::any::{Any, TypeId};
use std::collections::HashMap;

use crate::engine::JobError;
use crate::engine::job::run_kernel;
use crate::engine::seeds::Series;
use crate::kernel::{Kernel, Loading, NodeKernel, NodeValues, OwnedParams, Reply, to_offset};
use crate::supervisor::NodeCalls;

/// A value computed on the caller's thread.
pub(super) type InlineValue = Result<Box<dyn Any + Send>, JobError>;

/// The arguments of all nodes of one kernel.
struct Column<S> {
    rows: Vec<Option<S>>,
    load: fn(S, &mut Loading<'_>),
    run: fn(S, &mut NodeValues) -> InlineValue,
}

trait AnyColumn: Send {
    fn load(&mut self, row: u32, loading: &mut Loading<'_>);
    fn run(&mut self, row: u32, values: &mut NodeValues) -> InlineValue;
    fn as_any(&mut self) -> &mut dyn Any;
}

const ONCE: &str = "the call of a node is written once";

impl<S: Send + 'static> AnyColumn for Column<S> {
    fn load(&mut self, row: u32, loading: &mut Loading<'_>) {
        let slots = self.rows[row as usize].take().expect(ONCE);
        (self.load)(slots, loading);
    }
    fn run(&mut self, row: u32, values: &mut NodeValues) -> InlineValue {
        let slots = self.rows[row as usize].take().expect(ONCE);
        (self.run)(slots, values)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// All columns of a graph.
#[derive(Default)]
pub(super) struct Columns {
    columns: Vec<Box<dyn AnyColumn>>,
    pub(super) kernels: Vec<NodeKernel>,
    index: HashMap<TypeId, u32>,
    /// The kernel of the last added node, and its column.
    recent: Option<(TypeId, u32)>,
    /// The column and row of each node's arguments, by node.
    positions: Vec<(u32, u32)>,
    /// The series of the random numbers that the nodes draw.
    pub(super) series: Option<Series>,
}

impl Columns {
    /// Adds the arguments of a node whose kernel is `F`. Returns the kernel's index.
    pub(super) fn push<F, P, R>(&mut self, slots: P::Slots) -> u32
    where
        F: Kernel<P, R>,
        P: OwnedParams,
        R: Reply,
    {
        let id = TypeId::of::<F>();
        let column = match self.recent {
            Some((recent, column)) if recent == id => column,
            _ => self.column::<F, P, R>(id),
        };
        // Nodes with the same kernel have the same parameters.
        let typed = self.columns[column as usize].as_any().downcast_mut();
        let typed: &mut Column<P::Slots> = typed.expect("a kernel's column is of its slots");
        typed.rows.push(Some(slots));
        self.positions.push((column, typed.rows.len() as u32 - 1));
        column
    }

    #[cold]
    fn column<F, P, R>(&mut self, id: TypeId) -> u32
    where
        F: Kernel<P, R>,
        P: OwnedParams,
        R: Reply,
    {
        let column = *self.index.entry(id).or_insert_with(|| {
            let column = Column::<P::Slots> {
                rows: Vec::new(),
                load: P::load,
                run: |slots, values| {
                    let value = run_kernel::<F, P, R>(P::take(slots, values))?;
                    Ok(Box::new(value))
                },
            };
            self.columns.push(Box::new(column));
            self.kernels.push(NodeKernel::of::<F, P, R>());
            self.columns.len() as u32 - 1
        });
        self.recent = Some((id, column));
        column
    }

    /// Returns, for each kernel, whether its nodes may be part of a chain: not for kernels that spawn, and not for
    /// kernels whose code is not in the file that contains arenite.
    pub(super) fn fusable(&self) -> Vec<bool> {
        let kernels = self.kernels.iter();
        // A kernel that spawns has no value yet when it returns.
        let is_fusable =
            |kernel: &NodeKernel| !kernel.info.spawns && to_offset(kernel.info.entry).is_some();
        kernels.map(is_fusable).collect()
    }

    /// Runs a node on the caller's thread.
    pub(super) fn run(&mut self, node: u32, values: &mut NodeValues) -> InlineValue {
        let (column, row) = self.positions[node as usize];
        let series = self.series.as_ref();
        let _job = series.map(|series| series.begin_inline(node.into()));
        self.columns[column as usize].run(row, values)
    }
}

impl NodeCalls for Columns {
    fn load(&mut self, node: u32, loading: &mut Loading<'_>) {
        let (column, row) = self.positions[node as usize];
        self.columns[column as usize].load(row, loading);
        if let Some(series) = &self.series {
            loading.call.0.seed = series.seed(node.into());
        }
    }
}
