"""An independent media endpoint for tests: one pjsua2 call, run as its own process.

``python -m tests.support.pjsua_endpoint TARGET_URI PLAY.wav RECORD.wav CODEC [DIGITS]`` calls the
target, plays the one file, records into the other, sends the digits, and ends when the far end
hangs up. It prints "answered", "digit X" for each digit received, and "ended".
"""

from __future__ import annotations

import ctypes
import os
import sys

import pjsua2 as pj


class Call(pj.Call):  # type: ignore[misc]
    """Player and recorder are connected as soon as there is media."""

    def __init__(self, account: pj.Account, arguments: list[str]) -> None:
        super().__init__(account)
        self.arguments = arguments
        self.ended = False
        self.media: list[pj.AudioMedia] = []

    def onCallMediaState(self, _: pj.OnCallMediaStateParam) -> None:  # noqa: N802
        if self.media:
            return
        audio = self.getAudioMedia(-1)
        recorder, player = pj.AudioMediaRecorder(), pj.AudioMediaPlayer()
        recorder.createRecorder(self.arguments[2])
        player.createPlayer(self.arguments[1], pj.PJMEDIA_FILE_NO_LOOP)
        self.media = [recorder, player]
        audio.startTransmit(recorder)
        player.startTransmit(audio)
        say("answered")
        for digits in self.arguments[4:]:
            self.dialDtmf(digits)

    def onDtmfDigit(self, parameters: pj.OnDtmfDigitParam) -> None:  # noqa: N802
        say(f"digit {parameters.digit}")

    def onCallState(self, _: pj.OnCallStateParam) -> None:  # noqa: N802
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self.media.clear()  # closes the recording
            self.ended = True


def say(line: str) -> None:
    """One line for the test that reads us."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Place the call and stay until it is over."""
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.logConfig.level = config.logConfig.consoleLevel = 0
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.medConfig.clockRate = 8000
    config.medConfig.noVad = True
    config.medConfig.ecTailLen = 0
    # A fixed jitter buffer: the adaptive one shifts time by itself when a machine is busy.
    config.medConfig.jbInit = config.medConfig.jbMinPre = config.medConfig.jbMaxPre = 100
    config.medConfig.jbMax = 400
    discard = config.medConfig.jbDiscardAlgo  # an opaque pointer in this wheel (media.md §0)
    ctypes.c_int.from_address(int(discard)).value = 0  # PJMEDIA_JB_DISCARD_NONE
    config.medConfig.jbDiscardAlgo = discard
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = transport.publicAddress = "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    for codec in endpoint.codecEnum2():
        endpoint.codecSetPriority(codec.codecId, 255 * codec.codecId.startswith(arguments[3]))
    account = pj.Account()
    settings = pj.AccountConfig()
    settings.idUri = "sip:test@127.0.0.1"
    settings.mediaConfig.transportConfig.boundAddress = "127.0.0.1"
    settings.mediaConfig.transportConfig.publicAddress = "127.0.0.1"
    account.create(settings)
    call = Call(account, arguments)
    call.makeCall(arguments[0], pj.CallOpParam(True))
    while not call.ended:
        endpoint.libHandleEvents(20)
    del call, account
    endpoint.libDestroy()  # only this writes the recording's header for certain
    say("ended")
    os._exit(0)  # pjproject asserts on the way out of an interpreter (engineering/pjsua2.md §2)


if __name__ == "__main__":
    main(sys.argv[1:])
