"""The referral reward: what a referral gives to both sides."""

from __future__ import annotations

from api.catalog_receipts import reward_members
from api.fields import AmountOrZero, Reason, moment
from api.offer_answers import ReferralRewardAnswer, ReferralRewardOut
from api.packs import ExpiresDays
from api.plans import Effective
from api.routes import ADMIN, READERS, WRITE_REFUSALS, Asked, Call, Read, Write
from api.versions import READ_REFUSALS, OneVersion, one_version
from ledger.domain.commands import SetReferralReward
from ledger.domain.errors import InvalidCommand


class ReferralRewardIn(Asked, frozen=True, kw_only=True):
    """What a referral gives: to who referred, to who was referred. 0 is allowed."""

    referrer: AmountOrZero
    referred: AmountOrZero
    expires_days: ExpiresDays = None
    effective_at: Effective = None
    reason: Reason | None = None

    def command(self, target: str | None) -> SetReferralReward:
        """Return the command."""
        del target
        return SetReferralReward(
            referrer=self.referrer.value,
            referred=self.referred.value,
            expires_days=self.expires_days,
            effective_at=moment(self.effective_at),
        )


async def _read(call: Call, query: OneVersion) -> ReferralRewardOut:
    catalog = await call.room.ledger.catalog(call.tenant)
    rewards = catalog.referral_rewards
    if not rewards and query.version is None:
        return ReferralRewardOut(
            version=0, effective_at=None, referrer="0", referred="0", expires_days=None
        )
    return ReferralRewardOut(**reward_members(one_version(rewards, query.version)))


PUT_REFERRAL_REWARD = Write(
    method="PUT",
    path="/v1/catalog/referral-reward",
    name="put_referral_reward",
    tag="catalog",
    summary="Say what a referral gives to both sides",
    roles=ADMIN,
    refusals=(InvalidCommand, *WRITE_REFUSALS),
    body=ReferralRewardIn,
    answer=ReferralRewardAnswer,
)
READ_REFERRAL_REWARD = Read(
    method="GET",
    path="/v1/catalog/referral-reward",
    name="read_referral_reward",
    tag="catalog",
    summary="Read what a referral gives, by the newest version or by any",
    roles=READERS,
    refusals=READ_REFUSALS,
    query=OneVersion,
    handle=_read,
    answer=ReferralRewardOut,
    money=False,
)
