"""Finds the clients' accounts that your app is not subscribed to, and fails the run if there are any.

Without a subscription, your app gets no webhooks of the account: no messages and no changes of status.

Set the param `lake`. The subscriptions of all accounts go to `subscribed_apps/<day>.ndjson`. The task `missing` returns
the ids of the accounts without a subscription, and of those that could not be read, to XCom. The task `without_numbers`
returns those that have no phone numbers, for example because a change of currency has moved them to a new account: such
an account gets no webhooks either, even if your app is subscribed.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.rows import Manifest, read_rows

# `dag_run.run_after` instead of `ds`, because a run that an asset or a person starts may have no logical date.
FOLDER, DAY = "{{ params.lake }}/subscribed_apps", "{{ dag_run.run_after | ds }}"


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at once could write the same object.
    max_active_runs=1,
    default_args={"retries": 3},
    params={"lake": Param("file:///tmp/whatsapp", type="string", description="any store, e.g. s3://my-lake/whatsapp")},
    tags=["whatsapp"],
)
def audit_subscribed_apps() -> None:
    @task
    def missing(accounts: Manifest, subscriptions: Manifest) -> list[str]:
        our_app = WhatsAppHook().debug_token()["app_id"]
        # These rows have no `id`. The app is in a nested object, and an account without apps has no row.
        subscribed = {
            row["waba_id"]
            for row in read_rows(subscriptions)
            if row.get("whatsapp_business_api_data", {}).get("id") == our_app
        }
        return [account["id"] for account in read_rows(accounts) if account["id"] not in subscribed]

    @task
    def without_numbers(accounts: Manifest) -> list[str]:
        return [account["id"] for account in read_rows(accounts) if not account["phone_numbers"]["data"]]

    @task(retries=0)
    def check(found: list[str]) -> None:
        if found:
            raise RuntimeError(f"{len(found)} accounts lack a subscription of our app: {', '.join(found[:10])} ...")

    accounts = WhatsAppListWabasOperator(
        task_id="accounts",
        fields="id,name,phone_numbers{id}",
        output_path=f"{FOLDER}/_accounts/{DAY}.ndjson",
    )
    subscriptions = WhatsAppListWabaEdgeOperator(
        task_id="subscribed_apps",
        waba_ids=accounts.output,
        edge="subscribed_apps",
        on_account_error="skip",
        output_path=f"{FOLDER}/{DAY}.ndjson",
    )
    without_numbers(accounts.output)
    check(missing(accounts.output, subscriptions.output))


audit_subscribed_apps()
