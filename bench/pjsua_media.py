"""One pjsua2 process with up to four calls whose audio pjsua2 itself carries, for comparison.

``python -m bench.pjsua_media callee RTP_PORT WAV`` prints its SIP port and answers every call;
``… caller RTP_PORT WAV SIP_PORT CALLS`` places the calls. Each side plays the file in a loop into
each call and prints "up" once per call with audio. Ends by being killed.
"""

from __future__ import annotations

import sys

import pjsua2 as pj

HOST = "127.0.0.1"
CALLS_A_PROCESS = 4  # PJSUA_MAX_CALLS of the wheel (engineering/pjsua2.md §1)


class Call(pj.Call):  # type: ignore[misc]
    """Plays the file as soon as there is audio."""

    def __init__(self, account: Account, call_id: int = -1) -> None:
        super().__init__(account, call_id)
        self.player: pj.AudioMediaPlayer | None = None
        self.wav = account.wav

    def onCallMediaState(self, _: pj.OnCallMediaStateParam) -> None:  # noqa: N802
        """The SDP exchange is done."""
        if self.player is None:
            self.player = pj.AudioMediaPlayer()
            self.player.createPlayer(self.wav)
            self.player.startTransmit(self.getAudioMedia(-1))
            say("up")


class Account(pj.Account):  # type: ignore[misc]
    """Answers whatever comes."""

    def __init__(self, wav: str) -> None:
        super().__init__()
        self.wav = wav
        self.calls: list[Call] = []

    def onIncomingCall(self, parameters: pj.OnIncomingCallParam) -> None:  # noqa: N802
        """Take it."""
        call = Call(self, parameters.callId)
        self.calls.append(call)
        answer = pj.CallOpParam()
        answer.statusCode = 200
        call.answer(answer)


def say(line: str) -> None:
    """One line for the bench that started us."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def start() -> tuple[pj.Endpoint, str]:
    """An endpoint as lean as pjsua2 can be (engineering/pjsua2.md §2), and its SIP port."""
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.logConfig.level = config.logConfig.consoleLevel = 0
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.medConfig.threadCnt = 0
    config.medConfig.hasIoqueue = False
    config.medConfig.clockRate = 8000
    config.medConfig.noVad = True
    config.medConfig.ecTailLen = 0
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = transport.publicAddress = HOST
    number = endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    for codec in endpoint.codecEnum2():
        endpoint.codecSetPriority(codec.codecId, 255 * codec.codecId.startswith("PCMU"))
    information = endpoint.transportGetInfo(number)
    return endpoint, information.localName.rpartition(":")[2]


def main(role: str, rtp_port: str, wav: str, sip_port: str = "", calls: str = "0") -> None:
    """Serve until killed."""
    endpoint, own_port = start()
    account = Account(wav)
    settings = pj.AccountConfig()
    settings.idUri = f"sip:{role}@{HOST}"
    media = settings.mediaConfig.transportConfig
    media.boundAddress = media.publicAddress = HOST
    media.port = int(rtp_port)
    account.create(settings)
    say(f"port {own_port}")  # from here on a call is answered
    for _ in range(int(calls)):
        call = Call(account)
        account.calls.append(call)
        call.makeCall(f"sip:callee@{HOST}:{sip_port}", pj.CallOpParam(True))
    while True:
        endpoint.libHandleEvents(1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
