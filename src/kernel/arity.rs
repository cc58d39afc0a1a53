//! [`for_each_arity`]: the only list of the lengths of argument tuples.

/// Invokes `$each!` once for each tuple length from 0 to 8, with one group `P A x i` for each position in the tuple: a
/// type parameter for the kernel's parameter, one for the argument passed for it, a variable, and the tuple index.
macro_rules! for_each_arity {
    ($each:ident) => {
        $each! {}
        $each! { P0 A0 x0 0 }
        $each! { P0 A0 x0 0, P1 A1 x1 1 }
        $each! { P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2 }
        $each! { P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3 }
        $each! { P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3, P4 A4 x4 4 }
        $each! { P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3, P4 A4 x4 4, P5 A5 x5 5 }
        $each! { P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3, P4 A4 x4 4, P5 A5 x5 5, P6 A6 x6 6 }
        $each! { P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3, P4 A4 x4 4, P5 A5 x5 5, P6 A6 x6 6, P7 A7 x7 7 }
    };
}
pub(crate) use for_each_arity;
