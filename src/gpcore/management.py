"""Which deployments count, and who may ask for them.

Rules of this file: what is managed and who may ask are two values. A request names its deployment explicitly; a name
that is derived is compared, never taken apart.
"""

import attrs

from gpcore.decisions import AmbiguousName, CallerRefused, NotYours, Rejected, UnknownDeployment
from gpcore.pools import ParticipantId, Snapshot
from gpcore.requests import ScaleRequest


@attrs.frozen
class Management:
    """Say which deployments count (*managed*) and who may ask (*callers*); both are Dynamo namespaces.

    *managed* None: every deployment that is observed counts. An empty set: none. *callers* None: with *managed* None
    everybody may ask for everything, else each managed name for itself only. With *callers* given, just those may
    ask, each for every managed deployment.
    """

    managed: frozenset[str] | None = None
    callers: frozenset[str] | None = None

    def manages(self, participant: ParticipantId) -> bool:
        """Say whether the deployment *participant* counts."""
        return self.managed is None or participant.dynamo_namespace in self.managed

    def refusal(self, request: ScaleRequest, snapshot: Snapshot) -> Rejected | None:
        """Return why *request* may not be asked, or None where it may."""
        caller, participant = request.caller.caller, request.participant
        name = participant.dynamo_namespace
        askers = self.managed if self.callers is None else self.callers
        if askers is not None and caller not in askers:
            return Rejected(CallerRefused(caller))
        itself_only = self.managed is not None and self.callers is None
        if not self.manages(participant) or (itself_only and caller != name):
            return Rejected(NotYours(caller, participant))
        if snapshot.deployment(participant) is None:
            return Rejected(UnknownDeployment(participant))
        same_name = snapshot.named(name)
        if self.managed is not None and len(same_name) > 1:
            return Rejected(AmbiguousName(name, tuple(sorted(same_name, key=str))))
        return None
