-- Auto top-up: what was put for each account, and every attempt to charge a customer by itself.

CREATE TABLE scrip.auto_top_ups (
    tenant text NOT NULL REFERENCES scrip.tenants (tenant),
    account text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    enabled boolean NOT NULL,
    threshold bigint CHECK (threshold > 0),
    pack text,
    monthly_max bigint CHECK (monthly_max > 0),
    currency text,
    reversed_known bigint NOT NULL CHECK (reversed_known >= 0),
    why text,
    why_since timestamptz,
    look_at timestamptz NOT NULL,
    by text NOT NULL,
    put_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, account),
    CHECK (NOT enabled OR num_nulls(threshold, pack, monthly_max, currency) = 0),
    CHECK ((why IS NULL) = (why_since IS NULL))
);

CREATE INDEX auto_top_ups_enabled ON scrip.auto_top_ups (tenant, account) WHERE enabled;

COMMENT ON COLUMN scrip.auto_top_ups.threshold IS 'Micro-credits: with less than this available, the account is short';
COMMENT ON COLUMN scrip.auto_top_ups.monthly_max IS 'What may be charged in a calendar month (UTC), in the smallest unit of the currency';
COMMENT ON COLUMN scrip.auto_top_ups.reversed_known IS 'Micro-credits of all grants that had been taken back when it was put';
COMMENT ON COLUMN scrip.auto_top_ups.why IS 'Why the account is short and not topped up';
COMMENT ON COLUMN scrip.auto_top_ups.look_at IS 'When to look at the account again';
COMMENT ON COLUMN scrip.auto_top_ups.put_at IS 'When it was put first';

CREATE TABLE scrip.top_up_attempts (
    tenant text NOT NULL,
    account text NOT NULL,
    number integer NOT NULL CHECK (number > 0),
    id text NOT NULL UNIQUE,
    state text NOT NULL CHECK (state IN ('open', 'paid', 'granted', 'declined', 'failed')),
    customer text NOT NULL,
    card text NOT NULL,
    pack text NOT NULL,
    price text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    currency text NOT NULL,
    payment text,
    code text NOT NULL DEFAULT '',
    message text NOT NULL DEFAULT '',
    tries integer NOT NULL CHECK (tries > 0),
    ask_again boolean NOT NULL DEFAULT true,
    asked_at timestamptz NOT NULL,
    try_at timestamptz NOT NULL,
    told_at timestamptz,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (tenant, account, number),
    FOREIGN KEY (tenant, account) REFERENCES scrip.auto_top_ups (tenant, account),
    CHECK ((ended_at IS NULL) = (state IN ('open', 'paid'))),
    CHECK (state NOT IN ('paid', 'granted') OR payment IS NOT NULL)
);

-- One for a shortfall: while it is on the way, there is no other.
CREATE UNIQUE INDEX top_up_attempts_in_flight ON scrip.top_up_attempts (tenant, account)
    WHERE state IN ('open', 'paid');
CREATE INDEX top_up_attempts_month ON scrip.top_up_attempts (tenant, account, started_at);

COMMENT ON COLUMN scrip.top_up_attempts.id IS 'Also the idempotency key at the provider';
COMMENT ON COLUMN scrip.top_up_attempts.payment IS 'The key of the payment: `stripe:pi:…`';
COMMENT ON COLUMN scrip.top_up_attempts.tries IS 'How often it was taken up, by asking or by looking whether it is there';
COMMENT ON COLUMN scrip.top_up_attempts.ask_again IS 'Whether it may be asked for again, if the provider has no such charge';
COMMENT ON COLUMN scrip.top_up_attempts.asked_at IS 'When the charge was asked for last';
COMMENT ON COLUMN scrip.top_up_attempts.told_at IS 'When people were told that it takes long';

GRANT SELECT, INSERT, UPDATE ON scrip.auto_top_ups TO {app_role};
GRANT SELECT, INSERT, UPDATE ON scrip.top_up_attempts TO {app_role};
