//! The template that workers are forked from: starts it, and handles its end.

use std::time::Instant;

use super::{Monitor, TEMPLATE};
use crate::supervisor::template::WhyDisabled;
use crate::trace::escape;

impl Monitor {
    /// Returns true if workers can be started now. Starts the template if the engine has one and it is not running.
    pub(super) fn may_start(&mut self, now: Instant) -> bool {
        if self.template.is_absent() {
            let until = now.checked_add(self.start_limit());
            let disabled = self
                .template
                .begin(&self.shared.settings.program, &self.pipe, until);
            self.report_disabled(disabled);
            self.watch_template();
        }
        !self.template.is_awaited()
    }

    /// Polls the descriptors of the template.
    fn watch_template(&mut self) {
        let Some(descriptors) = self.template.descriptors() else {
            return;
        };
        // If polling fails, the time limit of the start ends the loading.
        for fd in descriptors {
            let _ = self.poller.add(fd, TEMPLATE);
        }
    }

    fn forget_template(&self) {
        for fd in self.template.descriptors().into_iter().flatten() {
            let _ = self.poller.remove(fd);
        }
    }

    /// Handles a message of the template, or its end.
    pub(super) fn receive_from_template(&mut self) {
        self.forget_template();
        let disabled = self.template.receive();
        self.watch_template();
        self.report_disabled(disabled);
        // If the template was lost, starts another at once, so that it can load before a worker is missing.
        self.may_start(Instant::now());
    }

    /// Disables a template that takes too long to load.
    pub(super) fn look_at_template(&mut self) {
        if self.template.until().is_none() {
            return;
        }
        let limit = self.start_limit();
        let disabled = self.template.look(Instant::now(), limit);
        self.report_disabled(disabled);
    }

    /// Ends a template that has not answered a request in time.
    pub(super) fn end_silent_template(&mut self) {
        let disabled = self.template.end_silent();
        self.report_disabled(disabled);
    }

    /// Reports why there will be no template.
    fn report_disabled(&self, why: WhyDisabled) {
        let Some(why) = why else {
            return;
        };
        let why = escape::escape_text(&why);
        let text = format!("workers are started one by one, without a template: {why}");
        self.shared.notify_log(0, text);
    }
}
