-- What the clock grants: free periods, trials, what goes over, rewards of referrals.

-- One row an account: how far its free periods are decided. What is decided is told to the ledger
-- from scrip.clock_grants, which is written in the same transaction.
CREATE TABLE scrip.free_plans (
    tenant text NOT NULL,
    account text NOT NULL,
    zone text NOT NULL,
    state bytea NOT NULL,
    idle boolean NOT NULL,
    paid boolean NOT NULL DEFAULT false,
    look_at timestamptz,
    PRIMARY KEY (tenant, account)
);

CREATE INDEX free_plans_due ON scrip.free_plans (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX free_plans_idle ON scrip.free_plans (tenant) WHERE idle;
CREATE INDEX free_plans_paid ON scrip.free_plans (tenant) WHERE paid;

COMMENT ON COLUMN scrip.free_plans.state IS 'JSON: convert_from(state, ''UTF8'')::jsonb';
COMMENT ON COLUMN scrip.free_plans.idle IS 'No free period runs: there was no free plan when one could have begun';
COMMENT ON COLUMN scrip.free_plans.paid IS 'A paid plan was had when the next free period would have begun';
COMMENT ON COLUMN scrip.free_plans.look_at IS 'When there is something to decide; NULL: not before something else happens';

-- How far the ledger was read for accounts that were opened and plans that were put.
CREATE TABLE scrip.clock_position (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL
);

INSERT INTO scrip.clock_position (position) VALUES (0);

-- Grants that are decided, and told to the ledger until it has them. Their ids make them count once.
CREATE TABLE scrip.clock_grants (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    account text NOT NULL,
    grant_id text NOT NULL,
    command bytea NOT NULL,
    once boolean NOT NULL,
    decided_at timestamptz NOT NULL,
    granted_at timestamptz,
    refused text,
    UNIQUE (tenant, account, grant_id)
);

CREATE INDEX clock_grants_owed ON scrip.clock_grants (place)
    WHERE granted_at IS NULL AND refused IS NULL;

COMMENT ON COLUMN scrip.clock_grants.once IS 'Kept once it is granted, since it says that there is no second; others are removed';
COMMENT ON COLUMN scrip.clock_grants.refused IS 'The code of a refusal that no repetition changes';

-- Periods of subscriptions whose unspent credits went over, as far as was known.
CREATE TABLE scrip.rolled_periods (
    tenant text NOT NULL,
    payment text NOT NULL,
    into_payment text NOT NULL,
    revision integer NOT NULL,
    rolled_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, payment),
    FOREIGN KEY (tenant, payment) REFERENCES scrip.payments (tenant, payment)
);

COMMENT ON COLUMN scrip.rolled_periods.revision IS 'That of the payment then: facts that came later may change what goes over';

CREATE INDEX payments_to_roll ON scrip.payments (ends_at)
    WHERE subscription IS NOT NULL AND state = 'applied' AND rolled_at IS NULL;

CREATE INDEX subscriptions_trialing ON scrip.subscriptions (tenant, account)
    WHERE status = 'trialing';

-- Who brought an account. A row is for ever: an account is referred once.
CREATE TABLE scrip.referrals (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    account text NOT NULL,
    referrer text NOT NULL CHECK (referrer <> account),
    by text NOT NULL,
    reward_version integer,
    referrer_amount bigint NOT NULL CHECK (referrer_amount >= 0),
    referred_amount bigint NOT NULL CHECK (referred_amount >= 0),
    expires_at timestamptz,
    referred_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, account)
);

CREATE INDEX referrals_referrer ON scrip.referrals (tenant, referrer);

COMMENT ON COLUMN scrip.referrals.reward_version IS 'The version of the reward in force; NULL: there was none';

GRANT SELECT, INSERT, UPDATE ON scrip.free_plans TO {app_role};
GRANT SELECT, UPDATE ON scrip.clock_position TO {app_role};
GRANT SELECT, INSERT, UPDATE, DELETE ON scrip.clock_grants TO {app_role};
GRANT SELECT, INSERT, UPDATE ON scrip.rolled_periods TO {app_role};
GRANT SELECT, INSERT ON scrip.referrals TO {app_role};
