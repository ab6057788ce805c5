"""All subscriptions of an account are found at once: the user of a repository has one account in all of them."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # The unique one (0001) knows those that are not over alone.
    op.execute("CREATE INDEX subscriptions_graph ON robosystems.subscriptions (graph_id)")
