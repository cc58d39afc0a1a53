//! The parameter `&[Array<T>]`: a list of arrays.

use super::failure::BadArgument;
use super::param::{Arg, CallWriter, HostRef, Key, Param, RetrySafe, Words, sealed};
use crate::array::{Array, Element};

impl<T: Element> sealed::Sealed for &[Array<T>] {}
impl<T: Element> Param for &[Array<T>] {
    type At<'j> = &'j [Array<T>];
    type Held = Vec<Array<T>>;
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Vec<Array<T>>, BadArgument> {
        let count = words.0.word()?;
        // Each array consumes words of the call, so a wrong count ends with an error.
        (0..count)
            .map(|_| <&Array<T> as Param>::receive(words, host))
            .collect()
    }
    fn at(held: &mut Vec<Array<T>>, _: Key) -> &[Array<T>] {
        held
    }
}

fn send<T: Element>(arrays: &[Array<T>], call: &mut CallWriter) {
    call.0.word(arrays.len() as u64);
    for array in arrays {
        <&Array<T> as Arg<'_, &Array<T>>>::send(array, call);
    }
}

fn held<T: Element>(arrays: &[Array<T>]) -> u64 {
    let held = |array: &Array<T>| <Array<T> as Arg<'_, &Array<T>>>::bytes_held(array);
    arrays.iter().map(held).sum()
}

impl<'env, T: Element> Arg<'env, &[Array<T>]> for Vec<Array<T>> {
    fn send(self, call: &mut CallWriter) {
        send(&self, call);
    }
    fn hold(self) -> Vec<Array<T>> {
        self
    }
    fn bytes_held(&self) -> u64 {
        held(self)
    }
}

impl<'env, T: Element> Arg<'env, &[Array<T>]> for &[Array<T>] {
    fn send(self, call: &mut CallWriter) {
        send(self, call);
    }
    fn hold(self) -> Vec<Array<T>> {
        self.to_vec()
    }
}

impl<'env, T: Element> Arg<'env, &[Array<T>]> for &Vec<Array<T>> {
    fn send(self, call: &mut CallWriter) {
        send(self, call);
    }
    fn hold(self) -> Vec<Array<T>> {
        self.clone()
    }
}

impl<T: Element> RetrySafe for Vec<Array<T>> {}
impl<T: Element> RetrySafe for &[Array<T>] {}
impl<T: Element> RetrySafe for &Vec<Array<T>> {}
