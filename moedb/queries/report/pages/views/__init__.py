"""Views: functions of a subject, and of what is shown of it, that give what JSON can hold.

Each asks named queries; what none of them says is read in SQL. A page embeds what they give, and
whatever serves pages may send the same.
"""
