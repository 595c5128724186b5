"""The accounts that a sandbox makes up."""

from __future__ import annotations

import re
import time

from airflow_provider_whatsapp.sandbox import GraphSandbox


class TestSampleAccounts:
    def test_same_for_the_same_seed(self) -> None:
        assert GraphSandbox(accounts=40).accounts == GraphSandbox(accounts=90).accounts[:40]
        assert GraphSandbox().owned_accounts == GraphSandbox().owned_accounts
        assert GraphSandbox(seed=1).accounts != GraphSandbox().accounts

    def test_realistic(self) -> None:
        accounts = GraphSandbox(accounts=3000).accounts
        numbers = [account["id"] for account in accounts]
        assert len(set(numbers)) == 3000
        assert all(re.fullmatch(r"\d{15,17}", number) for number in numbers)
        assert any(int(float(number)) != int(number) for number in numbers)
        names = "".join(account.get("name", "") for account in accounts)
        assert all(sign in names for sign in "é北\u0645\u0936К🍕\"',;\n")
        assert {account.get("ownership_type") for account in accounts} == {"CLIENT_OWNED", "ON_BEHALF_OF"}
        assert {len(account) for account in accounts} > {17}
        assert all(re.fullmatch(r"[\da-f_]{36}", a.get("message_template_namespace", "_" * 36)) for a in accounts)
        assert all(a.get("business_verification_status", "x").islower() for a in accounts)

    def test_a_hundred_thousand(self) -> None:
        begun = time.process_time()
        assert len(GraphSandbox(accounts=100_000).accounts) == 100_000
        assert time.process_time() - begun < 5
