"""Every endpoint of ICTCore's API guide, in its order, as the guide prints them.

The guide itself is not in this repository; its facts are in this list. `/statistics` it has as a
data structure only, its path is ICTCore's.
"""

from __future__ import annotations

_PRINTED = """
POST /authenticate
GET /programs
GET /programs/{program_id}
DELETE /programs/{program_id}
PUT /programs/{program_id}/transmissions
GET /programs/{program_id}/transmissions
POST /programs/emailtofax
POST /programs/faxtoemail
POST /programs/receiveemail
POST /programs/receivefax
POST /programs/receivesms
POST /programs/sendemail
POST /programs/sendfax
POST /programs/sendsms
POST /programs/voicemessage
POST /programs/voicetts
POST /transmissions
GET /transmissions
GET /transmissions/{transmission_id}
DELETE /transmissions/{transmission_id}
POST /transmissions/{transmission_id}/send
POST /transmissions/{transmission_id}/retry
PUT /transmissions/{transmission_id}/schedule
DELETE /transmissions/{transmission_id}/schedule
GET /transmissions/{transmission_id}/clone
POST /contacts
GET /contacts
GET /contacts/{contact_id}
PUT /contacts/{contact_id}
DELETE /contacts/{contact_id}
PUT /contacts/{contact_id}/link/{group_id}
DELETE /contacts/{contact_id}/link/{group_id}
POST /groups
GET /groups
GET /groups/{group_id}
PUT /groups/{group_id}
DELETE /groups/{group_id}
GET /groups/{group_id}/contacts
POST /groups/{group_id}/csv
GET /groups/{group_id}/csv
GET /groups/sample/csv
POST /campaigns
GET /campaigns
PUT /campaigns/{campaign_id}
GET /campaigns/{campaign_id}
DELETE /campaigns/{campaign_id}
PUT /campaigns/{campaign_id}/start
PUT /campaigns/{campaign_id}/stop
POST /campaigns/{campaign_id}/start/schedule
POST /campaigns/{campaign_id}/stop/schedule
POST /campaigns/{campaign_id}/schedule
POST /messages/documents
GET /messages/documents
GET /messages/documents/{document_id}
PUT /messages/documents/{document_id}
DELETE /messages/documents/{document_id}
PUT /messages/documents/{document_id}/media
GET /messages/documents/{document_id}/media
POST /messages/recordings
GET /messages/recordings
GET /messages/recordings/{recording_id}
PUT /messages/recordings/{recording_id}
DELETE /messages/recordings/{recording_id}
PUT /messages/recordings/{recording_id}/media
GET /messages/recordings/{recording_id}/media
POST /messages/templates
GET /messages/templates
GET /messages/templates/{template_id}
PUT /messages/templates/{template_id}
DELETE /messages/templates/{template_id}
PUT /messages/templates/{template_id}/media
GET /messages/templates/{template_id}/media
POST /messages/texts
GET /messages/texts
GET /messages/texts/{text_id}
PUT /messages/texts/{text_id}
DELETE /messages/texts/{text_id}
GET /transmissions/{transmission_id}/status
GET /transmissions/{transmission_id}/detail
GET /transmissions/{transmission_id}/result
GET /spools/{spool_id}/status
GET /spools/{spool_id}/result
POST /accounts
GET /accounts
GET /accounts/{account_id}
PUT /accounts/{account_id}
DELETE /accounts/{account_id}
PUT /accounts/{account_id}/programs/{program_id}
DELETE /accounts/{account_id}/programs/{program_id}
DELETE /accounts/{account_id}/programs
PUT /accounts/{account_id}/users/{user_id}
DELETE /accounts/{account_id}/users
GET /accounts/{account_id}/settings/{name}
PUT /accounts/{account_id}/settings/{name}
DELETE /accounts/{account_id}/settings/{name}
POST /users
GET /users
GET /users/{user_id}
PUT /users/{user_id}
DELETE /users/{user_id}
PUT /users/{user_id}/password
GET /users/csv
POST /users/csv
PUT /users/{user_id}/roles/{role_id}
DELETE /users/{user_id}/roles/{role_id}
PUT /users/{user_id}/permissions/{permission_id}
DELETE /users/{user_id}/permissions/{permission_id}
POST /providers
GET /providers
PUT /providers/{provider_id}
GET /providers/{provider_id}
DELETE /providers/{provider_id}
GET /statistics
"""

ENDPOINTS: tuple[tuple[str, str], ...] = tuple(
    (verb, path) for verb, path in (line.split() for line in _PRINTED.strip().splitlines())
)
"""Verb and path of each."""
