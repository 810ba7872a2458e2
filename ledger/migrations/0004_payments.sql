-- What providers told, as facts, and what follows from it. The facts are append-only; all other tables
-- here but the links are made from them again whenever one more comes.

CREATE TABLE scrip.payment_facts (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    id text NOT NULL,
    provider text NOT NULL,
    type text NOT NULL,
    delivery text NOT NULL,
    occurred_at timestamptz NOT NULL,
    fact bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);

COMMENT ON TABLE scrip.payment_facts IS 'Append-only. fact is JSON: convert_from(fact, ''UTF8'')::jsonb';

-- What connects facts: all that name the same payment or subscription are settled together.
CREATE TABLE scrip.payment_refs (
    tenant text NOT NULL,
    ref text NOT NULL,
    fact text NOT NULL,
    PRIMARY KEY (tenant, ref, fact),
    FOREIGN KEY (tenant, fact) REFERENCES scrip.payment_facts (tenant, id)
);

CREATE INDEX payment_refs_fact ON scrip.payment_refs (tenant, fact);

-- Which account an owner is that providers name (`stripe:customer:cus_…`, `clerk:user:user_…`).
CREATE TABLE scrip.account_links (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    owner text NOT NULL,
    account text NOT NULL,
    by text NOT NULL,
    linked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, owner)
);

CREATE INDEX account_links_account ON scrip.account_links (tenant, account);

COMMENT ON COLUMN scrip.account_links.owner IS 'A customer or a user; or one payment or subscription, by any name of its own';
COMMENT ON COLUMN scrip.account_links.by IS 'Who said so: `key:…`, or `fact:…` where a payment named both';

-- One row a payment, a paid period, or a change of credits by a user system.
CREATE TABLE scrip.payments (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    payment text NOT NULL,
    fact text NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    owners text[] NOT NULL,
    account text,
    state text NOT NULL CHECK (state IN ('waiting', 'applied', 'refused')),
    why text,
    told bytea NOT NULL,
    subscription text,
    offer text,
    amount bigint NOT NULL,
    starts_at timestamptz,
    ends_at timestamptz,
    rolled_at timestamptz,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    applied_at timestamptz,
    PRIMARY KEY (tenant, payment),
    FOREIGN KEY (tenant, fact) REFERENCES scrip.payment_facts (tenant, id)
);

CREATE INDEX payments_list ON scrip.payments (tenant, first_seen_at DESC, payment);
CREATE INDEX payments_account ON scrip.payments (tenant, account) WHERE account IS NOT NULL;
CREATE INDEX payments_undone ON scrip.payments (tenant, payment) WHERE state <> 'applied';
CREATE INDEX payments_periods ON scrip.payments (tenant, subscription, ends_at)
    WHERE subscription IS NOT NULL;

COMMENT ON COLUMN scrip.payments.fact IS 'One of the facts that it follows from; the others are connected to it';
COMMENT ON COLUMN scrip.payments.revision IS 'From how many facts it follows';
COMMENT ON COLUMN scrip.payments.owners IS 'All names under which it may be linked to an account: of its customer, and its own';
COMMENT ON COLUMN scrip.payments.why IS 'Why it waits: account_unknown, account_conflict, account_not_found; or the code of the refusal';
COMMENT ON COLUMN scrip.payments.told IS 'JSON of the entitlement or the change of credits';
COMMENT ON COLUMN scrip.payments.amount IS 'Micro-credits: granted and bonus, less what went back; signed for a change';
COMMENT ON COLUMN scrip.payments.rolled_at IS 'When what was unspent of the period went over into the next, if any did';

CREATE TABLE scrip.subscriptions (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    subscription text NOT NULL,
    fact text NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    owners text[] NOT NULL,
    account text,
    provider text NOT NULL,
    status text NOT NULL CHECK (
        status IN ('incomplete', 'upcoming', 'trialing', 'active', 'past_due', 'paused', 'ended')
    ),
    plan text,
    starts_at timestamptz,
    ends_at timestamptz,
    cancel_at timestamptz,
    ended_at timestamptz,
    since timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, subscription),
    FOREIGN KEY (tenant, fact) REFERENCES scrip.payment_facts (tenant, id)
);

CREATE INDEX subscriptions_account ON scrip.subscriptions (tenant, account)
    WHERE account IS NOT NULL;
CREATE INDEX subscriptions_waiting ON scrip.subscriptions (tenant, subscription)
    WHERE account IS NULL;

COMMENT ON COLUMN scrip.subscriptions.plan IS 'The plan that is had: the free one, once it has ended';

-- What a person has to put right. Each is an event of the ledger as well (`alert.raised.v1`).
CREATE TABLE scrip.payment_alerts (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    code text NOT NULL,
    subject text NOT NULL,
    price text NOT NULL DEFAULT '',
    fact text,
    revision integer NOT NULL DEFAULT 0,
    raised_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    PRIMARY KEY (tenant, code, subject, price)
);

CREATE INDEX payment_alerts_open ON scrip.payment_alerts (tenant, raised_at)
    WHERE resolved_at IS NULL;

COMMENT ON COLUMN scrip.payment_alerts.revision IS 'From how many facts it follows: fewer cannot resolve it';
COMMENT ON COLUMN scrip.payment_alerts.fact IS 'One of the facts that it follows from; NULL: a delivery that could not be read';

GRANT SELECT, INSERT ON scrip.payment_facts TO {app_role};
GRANT SELECT, INSERT ON scrip.payment_refs TO {app_role};
GRANT SELECT, INSERT, UPDATE, DELETE ON scrip.account_links TO {app_role};
GRANT SELECT, INSERT, UPDATE ON scrip.payments TO {app_role};
GRANT SELECT, INSERT, UPDATE ON scrip.subscriptions TO {app_role};
GRANT SELECT, INSERT, UPDATE ON scrip.payment_alerts TO {app_role};
